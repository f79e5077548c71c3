"""How the models are compiled.

Hot code of this package is a set of plain functions over NumPy arrays, compiled by numba and
cached on disk.  One rule keeps it readable and exact: **every integer inside a kernel is int64**.
A 64-bit pattern with the top bit set (a high-half virtual address, a NAPOT entry) is the negative
number with the same bits, so shifts right of a virtual address sign-extend for free and numba
never promotes a uint64/int64 mix to float.  Mask after every right shift of an entry.
:func:`signed` and :func:`unsigned` convert at the border to Python integers.

They hold no lock of the interpreter while they run, so independent models run side by side in
threads.

*Cache.*  Only what Python calls is cached on disk.  numba notices when the source of a cached
function changes, but not when a function that it calls does.  So each module's compiled code lies
in a folder named after its source and that of all modules of this package that it imports; a stale
one is never found.  These folders are in the first of these places that can be written to:

1. ``NUMBA_CACHE_DIR``,
2. ``__pycache__`` beside the source,
3. ``COSIM_CACHE``,
4. ``lsp-cosim`` in ``XDG_CACHE_HOME``, by default ``~/.cache``.

If there is none, a warning says so once, and each process compiles what it needs for itself.

*Start.*  Importing numba takes longer than importing all that is ours.  So it is left to the first
call of a kernel (:mod:`hypervisor_model.compiled_forms`), which may come while a guest runs.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, cast

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

_LOGGER = logging.getLogger(__name__)
_FORMS = "hypervisor_model.compiled_forms"
"""The module that decides how all are compiled."""

_IS_OFF = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"
"""True if kernels are to stay Python functions, for people who debug them."""

_SIGN = 1 << 63
_MASK = (1 << 64) - 1


def kernel(function: F) -> F:
    """Compile ``function`` in numba's nopython mode; callable from Python and from kernels.

    What Python calls is cached on disk.
    """
    return cast(F, function if _IS_OFF else _Kernel(function))


def plain(function: F) -> F:
    """Return the Python function that a kernel was made of.

    One call of it from Python takes less time than one of the kernel, if it does little.
    """
    return cast(F, getattr(function, "__wrapped__", function))


def inner(function: F) -> F:
    """As :func:`kernel`, but callable from kernels only."""
    return cast(F, function if _IS_OFF else _Inner(function))


def inlined(function: F) -> F:
    """As :func:`kernel`, and its code becomes part of every kernel that calls it.

    For what the loop over events does at each of them.  A call passes all arrays of a state on the
    stack, some 200 words, which takes longer than a hit in the TLB.
    """
    return cast(F, function if _IS_OFF else _Kernel(function, is_inlined=True))


def with_globals(function: Callable[..., Any], module: str, name: str, **names: Any) -> Any:
    """Return a kernel from the code of ``function``, which sees ``names`` among its globals.

    This makes one kernel per set of callees from a single source.  A closure would do the same, but
    numba cannot find its compiled code again in another process.

    :param function: the template; it is not called itself.
    :param module: the module that the kernel belongs to.  Its code is compiled anew if the source
        of this module changes, or that of a module that it imports.
    :param name: what the kernel is called, unique in the module.
    """
    made = FunctionType(function.__code__, {**function.__globals__, **names}, name)
    made.__module__ = module
    made.__qualname__ = name
    return kernel(made)


def record_of(*names: str) -> np.dtype[np.void]:
    """Return the type of a record with int64 fields of these names, for the state of kernels.

    The elements of an array of this type have these fields as attributes, in kernels and in Python.
    """
    return np.dtype((np.record, [(name, np.int64) for name in names]))


def signed(value: int) -> int:
    """Return the int64 with the bits of the unsigned 64-bit ``value``."""
    return ((value & _MASK) ^ _SIGN) - _SIGN


def unsigned(value: int) -> int:
    """Return the unsigned 64-bit integer with the bits of the int64 ``value``."""
    return int(value) & _MASK


class _Inner:
    """A function with the compiled form that kernels call."""

    def __init__(self, function: Callable[..., Any], *, is_inlined: bool = False) -> None:
        functools.update_wrapper(cast(Any, self), function)
        self._function = function
        self._is_inlined = is_inlined

    @functools.cached_property
    def inner(self) -> Any:
        """What numba calls a dispatcher.  It compiles when it is first asked for some types."""
        from hypervisor_model import compiled_forms

        return compiled_forms.inner(self._function, is_inlined=self._is_inlined)

    @property
    def _numba_type_(self) -> Any:
        """What numba takes this for in a kernel."""
        return self.inner._numba_type_


class _Kernel(_Inner):
    """A function that has a second form, which Python calls.

    Either is compiled when it is first called.
    """

    def __init__(self, function: Callable[..., Any], *, is_inlined: bool = False) -> None:
        super().__init__(function, is_inlined=is_inlined)
        self._outer: Any = None

    def __call__(self, *args: Any) -> Any:
        if self._outer is None:
            with _LOCK:
                # Another thread may have been faster.
                self._outer = self._outer or self._made()
        return self._outer(*args)

    def _made(self) -> Any:
        from hypervisor_model import compiled_forms

        return compiled_forms.outer(self._function, cache_folder(self._function.__module__))


_LOCK = threading.Lock()


@functools.cache
def cache_folder(module: str) -> Path | None:
    """Return the folder for the compiled code of a module; None if nothing is compiled, or kept."""
    base = None if _IS_OFF else _cache_base()
    if base is None:
        return None
    family = base / "kernels" / module
    folder = family / f"{_stamp(module)}{_stamp(_FORMS)}"
    if not folder.is_dir():
        # What older sources left; another process that still uses it compiles again.
        shutil.rmtree(family, ignore_errors=True)
    return folder


@functools.cache
def _cache_base() -> Path | None:
    """Return the folder for all compiled code; None, after a warning, if there is no place for
    one."""
    for folder in _places():
        if _is_writable(folder):
            return folder
    _LOGGER.warning(
        "compiled models cannot be kept, because no cache folder can be written to; this run "
        "compiles them anew.  Set COSIM_CACHE to a folder for them."
    )
    return None


def _places() -> Iterator[Path]:
    if os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(os.environ["NUMBA_CACHE_DIR"])
    yield Path(__file__).parent / "__pycache__"
    if os.environ.get("COSIM_CACHE"):
        yield Path(os.environ["COSIM_CACHE"])
    try:
        yield Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lsp-cosim"
    except RuntimeError:
        # No HOME, and the user is in no list of users: there is no such folder.
        return


def _is_writable(folder: Path) -> bool:
    """Return True if files can be made in a folder, which is made if need be.

    Only a file tells: permissions say nothing to root, or of a file system without room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError:
        return False
    return True


@functools.cache
def _stamp(module: str) -> str:
    """Return a digest of a module's source, and of all modules of this package that it imports."""
    path = _source_of(module) or _source_elsewhere(module)
    source = path.read_bytes() if path else b""
    digest = hashlib.sha256(source)
    for imported in sorted(_imports(source)):
        digest.update(_stamp(imported).encode())
    return digest.hexdigest()[:16]


def _imports(source: bytes) -> set[str]:
    """Return the modules of this package that a source imports when it is loaded."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` and `from package.module import name` look alike.
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if _source_of(name)}


def _source_of(module: str) -> Path | None:
    """Return the file of a module of this package; None for any other, and for packages."""
    package, _, name = module.partition(".")
    path = (Path(__file__).parent / name.replace(".", "/")).with_suffix(".py")
    return path if package == __package__ and path.is_file() else None


def _source_elsewhere(module: str) -> Path | None:
    """Return the file of a loaded module outside of this package that has kernels."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file else None
