"""The compiled forms of kernels, made by numba; :mod:`hypervisor_model.jit` says what kernels are.

Kernels allocate nothing, so they are compiled without numba's reference counting (``_nrt``), which
would otherwise count every array of a state up and down at every call: a fifth of the speed.

*Compile time.*  numba would optimise each function, and make machine code of it, once alone and
then again inside every function that calls it.  Here a function that only kernels call is left as
it is (:func:`inner`); LLVM sees it once, inside the kernel that Python calls.  This halves the
time.

*Load time.*  numba would register all functions of NumPy and Python that it can compile before it
loads compiled code, which takes three times as long as to load the code.  Here it registers them
when it compiles (:class:`_Cache`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

_OPTIONS = {"error_model": "numpy", "nogil": True, "_nrt": False, "no_cfunc_wrapper": True}


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


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache, which needs nothing registered to load code."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code for the types ``sig``; None if there is none."""
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


def inner(function: Callable[..., Any], *, is_inlined: bool) -> Any:
    """Return the form of ``function`` that kernels call.

    :param is_inlined: its code becomes part of every kernel that calls it.
    """
    # Without a value numba would take that of the function whose call compiles this one.
    dispatcher = numba.njit(
        no_cpython_wrapper=True,
        pipeline_class=_InnerCompiler,
        forceinline=is_inlined,
        **_OPTIONS,
    )(function)
    return _one_version(dispatcher)


def outer(function: Callable[..., Any], folder: Path | None) -> Any:
    """Return the form of ``function`` that Python calls.  One thread at a time may ask for one.

    :param folder: where its code is kept; None: nowhere.
    """
    dispatcher = numba.njit(**_OPTIONS)(function)
    if folder is not None:
        user = numba.config.CACHE_DIR
        # The cache picks its folder when it is made.
        numba.config.CACHE_DIR = str(folder)
        try:
            dispatcher._cache = _Cache(function)  # noqa: SLF001 - as enable_caching does
        finally:
            numba.config.CACHE_DIR = user
    return dispatcher


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
