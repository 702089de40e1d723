"""Extensions of numba for `nearfar.runtime.jit`: kernels that are compiled as pieces of others.

Numba optimises every function that another one calls, translates it to machine code, and then
does both again for the caller, which contains the code of the first; in a chain of eight calls the
last function is optimised eight times. Here a kernel that another kernel calls is a *piece*: it is
translated to LLVM code and simplified function by function. The kernel that Python calls links all
its pieces and is optimised once.

Only this module and `nearfar.runtime.references` depend on numba's internals.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from numba import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.registry import CPUDispatcher


class _NoEnvironment:
    """A code generator that ignores requests to set the environment of code it does not hold."""

    def __init__(self, codegen: Any) -> None:
        self._codegen = codegen

    def set_env(self, name: str, environment: Any) -> None:
        """Do nothing: a piece uses the environment of the kernel that contains it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)


class _Piece(JITCodeLibrary):
    """The code of a kernel that other kernels link: only simplified, without machine code.

    It does not contain the pieces that it calls; the kernel that links it links those as well.
    """

    @property
    def codegen(self) -> Any:
        return _NoEnvironment(self._codegen)

    def finalize(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0


class _OptimisedPiece(_Piece):
    """A piece that is optimised before it is linked, which fixes its order of additions."""

    def finalize(self) -> None:
        self._optimize_final_module()
        super().finalize()


class _Whole(JITCodeLibrary):
    """The code of a kernel that Python calls, including all its pieces."""

    def finalize(self) -> None:
        libraries, waiting = dict[Any, None](), list(self._linking_libraries)
        while waiting:
            library = waiting.pop()
            if library not in libraries:
                libraries[library] = None
                waiting += library._linking_libraries if isinstance(library, _Piece) else []
        self._linking_libraries = list(libraries)
        super().finalize()


class WholeCompiler(CompilerBase):
    """Compiles into a `_Whole`."""

    library_class: type[JITCodeLibrary] = _Whole

    def define_pipelines(self) -> list[Any]:
        """Return numba's default passes, with `library_class` as the destination of the code."""
        codegen = self.state.targetctx.codegen()
        self.state.library = self.library_class(codegen, self.state.func_id.func_qualname)
        if self.library_class is _Whole:
            self.state.library.enable_object_caching()
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


class PieceCompiler(WholeCompiler):
    """Compiles into a `_Piece`."""

    library_class = _Piece


class OptimisedPieceCompiler(WholeCompiler):
    """Compiles into an `_OptimisedPiece`."""

    library_class = _OptimisedPiece


def _widened(kind: Any) -> Any:
    """Return the argument type for `kind`: constants as plain types, short integers as int64."""
    plain = types.unliteral(kind)
    is_short = isinstance(plain, types.Integer) and plain.signed and plain.bitwidth < 64
    return types.int64 if is_short else plain


class PieceDispatcher(CPUDispatcher):
    """Compiles a kernel for calls from other kernels."""

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Compile for the argument types of a call."""
        return super().get_call_template(tuple(map(_widened, args)), kws)


class Kernel(CPUDispatcher):
    """A kernel: compiled whole for calls from Python, and as a piece for other kernels."""

    piece: CPUDispatcher

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Compile for the argument types of a call from another kernel."""
        return self.piece.get_call_template(args, kws)

    def get_overload(self, sig: Any) -> Any:
        """Return the code compiled for the argument types of a call from another kernel."""
        return self.piece.get_overload(sig)


class ByRecord(CPUDispatcher):
    """A kernel that selects one of several by the type of its first argument."""

    cases: Mapping[type, CPUDispatcher]

    def __call__(self, *args: Any) -> Any:
        """Call the kernel for the type of the first argument."""
        return self.cases[type(args[0])](*args)

    def _case(self, kind: Any) -> CPUDispatcher:
        record = getattr(kind, "record", kind)  # of a reference, see `nearfar.runtime.references`
        return self.cases[getattr(record, "instance_class", NoneType)]

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Compile for the argument types of a call from another kernel."""
        return self._case(args[0]).get_call_template(args, kws)

    def get_overload(self, sig: Any) -> Any:
        """Return the code compiled for the argument types of a call from another kernel."""
        return self._case(sig[0]).get_overload(sig)
