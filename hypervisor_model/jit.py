"""How the models are compiled.

Hot code of this package is a set of plain functions over NumPy arrays, compiled by numba and
cached on disk.  One rule keeps it readable and exact: **every integer inside a kernel is int64**.
A 64-bit pattern with the top bit set (a high-half virtual address, a NAPOT entry) is the negative
number with the same bits, so shifts right of a virtual address sign-extend for free and numba
never promotes a uint64/int64 mix to float.  Mask after every right shift of an entry.
:func:`signed` and :func:`unsigned` convert at the border to Python integers.

Kernels allocate nothing, so they are compiled without numba's reference counting (``_nrt``), which
would otherwise count every array of a state up and down at every call: a fifth of the speed.

They hold no lock of the interpreter while they run, so independent models run side by side in
threads.

*Compile time.*  numba would optimise each function, and make machine code of it, once alone and
then again inside every function that calls it.  Here a function that only kernels call
(:func:`inner`) is left as it is; LLVM sees it once, inside the kernel that Python calls.  This
halves the time.

*Cache.*  Only what Python calls is cached on disk.  numba notices when the source of a cached
function changes, but not when a function that it calls does.  So each module's compiled code lies
in a folder named after its source and that of all modules of this package that it imports; a stale
one is never found.  These folders are in the first of these places that can be written to:

1. ``NUMBA_CACHE_DIR``,
2. ``__pycache__`` beside the source,
3. ``COSIM_CACHE``,
4. ``lsp-cosim`` in ``XDG_CACHE_HOME``, by default ``~/.cache``.

If there is none, a warning says so once, and each process compiles what it needs for itself.
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

import numba
import numpy as np
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import typeof_impl

F = TypeVar("F", bound=Callable[..., Any])

_LOGGER = logging.getLogger(__name__)

_SIGN = 1 << 63
_MASK = (1 << 64) - 1


def kernel(function: F) -> F:
    """Compile ``function`` in numba's nopython mode; callable from Python and from kernels.

    What Python calls is cached on disk.
    """
    return cast(F, function if numba.config.DISABLE_JIT else _Kernel(function))


def plain(function: F) -> F:
    """Return the Python function that a kernel was made of.

    One call of it from Python takes less time than one of the kernel, if it does little.
    """
    return cast(F, getattr(function, "__wrapped__", function))


def inner(function: F) -> F:
    """As :func:`kernel`, but callable from kernels only."""
    return cast(F, function if numba.config.DISABLE_JIT else _inner(function))


def inlined(function: F) -> F:
    """As :func:`kernel`, and its code becomes part of every kernel that calls it.

    For what the loop over events does at each of them.  A call passes all arrays of a state on the
    stack, some 200 words, which takes longer than a hit in the TLB.
    """
    return cast(F, function if numba.config.DISABLE_JIT else _Kernel(function, is_inlined=True))


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


class _Kernel:
    """A function with two compiled forms: one that kernels call, one that Python calls.

    Either is compiled when it is first called.
    """

    def __init__(self, function: Callable[..., Any], *, is_inlined: bool = False) -> None:
        functools.update_wrapper(self, function)
        self.inner = _inner(function, is_inlined=is_inlined)
        self._function = function
        self._outer: Any = None

    def __call__(self, *args: Any) -> Any:
        if self._outer is None:
            with _FOLDER_LOCK:
                # Another thread may have been faster.
                self._outer = self._outer or _outer(self._function)
        return self._outer(*args)


@typeof_impl.register(_Kernel)  # type: ignore[untyped-decorator]
def _typeof_kernel(value: _Kernel, _context: Any) -> Any:
    """Let numba take a kernel that a kernel calls for its inner form."""
    return numba.types.Dispatcher(value.inner)


class _RawLibrary(JITCodeLibrary):  # type: ignore[misc]
    """The code of an inner function: not optimised, and no machine code is made of it."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    @property
    def codegen(self) -> Any:
        return self

    def set_env(self, _name: str, _env: Any) -> None:
        """Take the environment of a function that Python could call: there is none."""


class _InnerCompiler(Compiler):  # type: ignore[misc]
    """numba's compiler, with a library of ours for the result."""

    def define_pipelines(self) -> Any:
        state = self.state
        state.library = _RawLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        return super().define_pipelines()


_FOLDER_LOCK = threading.Lock()
_OPTIONS = {"error_model": "numpy", "nogil": True, "_nrt": False, "no_cfunc_wrapper": True}


def _inner(function: Callable[..., Any], *, is_inlined: bool = False) -> Any:
    # Without a value numba would take that of the function whose call compiles this one.
    dispatcher = numba.njit(
        no_cpython_wrapper=True,
        pipeline_class=_InnerCompiler,
        forceinline=is_inlined,
        **_OPTIONS,
    )(function)
    return _one_version(dispatcher)


def _outer(function: Callable[..., Any]) -> Any:
    """Return the form that Python calls; the caller holds :data:`_FOLDER_LOCK`."""
    folder = cache_folder(function.__module__)
    if folder is None:
        return numba.njit(**_OPTIONS)(function)
    user = numba.config.CACHE_DIR
    # numba picks the folder when it wraps the function, not when it compiles it.
    numba.config.CACHE_DIR = str(folder)
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    finally:
        numba.config.CACHE_DIR = user


def _one_version(dispatcher: Any) -> Any:
    """Let kernels that call ``dispatcher`` share one version of it.

    numba would compile one for each combination of constants in the calls, which doubles the time
    to compile this package; after inlining LLVM knows the constants anyway.
    """
    resolve = dispatcher.get_call_template

    def get_call_template(args: Any, kws: dict[str, Any]) -> Any:
        plain = {name: numba.types.unliteral(kind) for name, kind in kws.items()}
        return resolve([numba.types.unliteral(kind) for kind in args], plain)

    dispatcher.get_call_template = get_call_template
    return dispatcher


@functools.cache
def cache_folder(module: str) -> Path | None:
    """Return the folder for the compiled code of a module; None if nothing is compiled, or kept."""
    base = None if numba.config.DISABLE_JIT else _cache_base()
    if base is None:
        return None
    family = base / "kernels" / module
    folder = family / _stamp(module)
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
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR)
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
