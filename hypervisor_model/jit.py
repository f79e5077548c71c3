"""How the models are compiled.

Hot code of this package is a set of plain functions over NumPy arrays, compiled by numba and
cached on disk.  One rule keeps it readable and exact: **every integer inside a kernel is int64**.
A 64-bit pattern with the top bit set (a high-half virtual address, a NAPOT entry) is the negative
number with the same bits, so shifts right of a virtual address sign-extend for free and numba
never promotes a uint64/int64 mix to float.  Mask after every right shift of an entry.
:func:`signed` and :func:`unsigned` convert at the border to Python integers.

Kernels allocate nothing, so they are compiled without numba's reference counting (``_nrt``), which
would otherwise count every array of a state up and down at every call: a fifth of the speed.

They hold no lock of the interpreter's while they run, so independent models run side by side in
threads.

numba notices when the source of a cached function changes, but not when a function that it calls
does.  So each module's compiled code lies in a folder named after its source and that of all
modules of this package that it imports; a stale one is never found.  ``NUMBA_CACHE_DIR`` moves
these folders, which are otherwise beside the source, or in the user's cache folder where the
source cannot be written to.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

_SIGN = 1 << 63
_MASK = (1 << 64) - 1


def kernel(function: F) -> F:
    """Compile ``function`` in numba's nopython mode, cached; callable from Python and kernels."""
    return _compile(function)


def inner(function: F) -> F:
    """As :func:`kernel`, but callable from kernels only.

    Without the entry from Python a function over a state of many arrays compiles in a fifth of
    the time.
    """
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def signed(value: int) -> int:
    """The int64 with the bits of the unsigned 64-bit ``value``."""
    return ((value & _MASK) ^ _SIGN) - _SIGN


def unsigned(value: int) -> int:
    """The unsigned 64-bit integer with the bits of the int64 ``value``."""
    return int(value) & _MASK


def _compile(function: F, **options: bool) -> F:
    user = numba.config.CACHE_DIR
    # numba picks the folder when it wraps the function, not when it compiles it.
    numba.config.CACHE_DIR = str(_cache_folder(function.__module__))
    try:
        dispatcher = numba.njit(cache=True, error_model="numpy", nogil=True, _nrt=False, **options)(
            function
        )
    finally:
        numba.config.CACHE_DIR = user
    return cast(F, _one_version(dispatcher))


def _one_version(dispatcher: Any) -> Any:
    """Let kernels that call ``dispatcher`` share one version of it.

    numba would compile one for each combination of constants in the calls, which doubles the time
    to compile this package; after inlining LLVM knows the constants anyway.
    """
    if numba.config.DISABLE_JIT:
        return dispatcher
    resolve = dispatcher.get_call_template

    def get_call_template(args: Any, kws: dict[str, Any]) -> Any:
        plain = {name: numba.types.unliteral(kind) for name, kind in kws.items()}
        return resolve([numba.types.unliteral(kind) for kind in args], plain)

    dispatcher.get_call_template = get_call_template
    return dispatcher


@functools.cache
def _cache_folder(module: str) -> Path:
    beside = Path(__file__).parent / "__pycache__"
    if numba.config.CACHE_DIR:
        base = Path(numba.config.CACHE_DIR)
    elif _writable(beside):
        base = beside
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        base = Path(cache).expanduser() / "lsp-cosim"
    family = base / "kernels" / module
    folder = family / _stamp(module)
    if not folder.is_dir():
        # What older sources left; another process that still uses it compiles again.
        shutil.rmtree(family, ignore_errors=True)
    return folder


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


@functools.cache
def _stamp(module: str) -> str:
    """A digest of a module's source and of all modules of its package that it imports."""
    path = _source_of(module)
    source = path.read_bytes() if path else b""
    digest = hashlib.sha256(source)
    for imported in sorted(_imports(source)):
        digest.update(_stamp(imported).encode())
    return digest.hexdigest()[:16]


def _imports(source: bytes) -> set[str]:
    """The modules of this package that a source imports when it is loaded."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` and `from package.module import name` look alike.
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if _source_of(name)}


def _source_of(module: str) -> Path | None:
    """The file of a module of this package; None for any other, and for packages themselves."""
    package, _, name = module.partition(".")
    path = (Path(__file__).parent / name.replace(".", "/")).with_suffix(".py")
    return path if package == __package__ and path.is_file() else None
