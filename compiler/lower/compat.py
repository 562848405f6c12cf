# pyright: reportPrivateUsage=false
"""Everything private of Inductor that lowerings and bundles use, with what it relies on.

Written against torch 2.13.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from turbo4d.compiler.compat import written


@dataclass(frozen=True)
class Form:
    """What a compiled graph must know of a tensor that it is given."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Compiled:
    """What Inductor makes of a graph.

    Args:
        call: a function of the placeholders' tensors that gives a tuple or a list.
        strides: that Inductor chose for each result.
    """

    call: Callable[..., Sequence[torch.Tensor]]
    strides: tuple[tuple[int, ...], ...]


class _Reporting(TracingContext):
    """A tracing context that remembers the lists it was given to report strides into."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self.lists: list[Sequence[tuple[int, ...]]] = []
        super().__init__(mode)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "output_strides" and value is not None:
            self.lists.append(value)
        super().__setattr__(name, value)

    @property
    def reported(self) -> tuple[tuple[int, ...], ...]:
        filled = [strides for strides in self.lists if strides]
        return tuple(tuple(strides) for strides in filled[-1]) if filled else ()


def compile_with_inductor(module: fx.GraphModule, inputs: Sequence[Form]) -> Compiled:
    """Compile a flat functional graph for fixed shapes; Inductor's caches on disk are used.

    Relies on `compile_fx` taking fake inputs and working under the ambient `TracingContext`, to
    whose `output_strides` Inductor reports the strides it chose: into a list that ahead-of-time
    autograd sets for the time being, or into ours where its cache had the graph. And on
    `config.keep_output_stride`: without it a result's layout is the one that suits Inductor
    (channels last after convolutions on a CPU).

    Args:
        module: of functions and placeholders; taken over.
        inputs: one for each placeholder.
    """
    # Inductor takes two seconds to import: only who compiles pays them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 warns about itself
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx

    mode = FakeTensorMode(shape_env=ShapeEnv())
    with mode:
        fakes = [
            torch.empty_strided(form.shape, form.strides, dtype=form.dtype, device=form.device)
            for form in inputs
        ]
    context = _Reporting(mode)
    settings: Any = config
    with (
        torch.no_grad(),
        tracing(context),
        TracingContext.report_output_strides(),
        settings.patch(keep_output_stride=False),
        torch._C._DisableAutocast(),
    ):
        compiled: Any = compile_fx(module, fakes)
    return Compiled(compiled, context.reported)


@contextmanager
def without_input_checks() -> Generator[None]:
    """Packages hold no code that checks dtype, sizes and strides of each input.

    It would run only where a variable of the environment asks for it, and is more than half of the
    C++ of a graph with hundreds of weights as inputs; a bundle compares the forms itself. Relies on
    `CppWrapperCpu.generate_input_output_runtime_checks`, which writes a check for each of
    `V.graph.graph_inputs`; where torch has no such method, nothing is left out.
    """
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu
    from torch._inductor.virtualized import V

    name = "generate_input_output_runtime_checks"
    written: Any = getattr(CppWrapperCpu, name, None)
    if written is None:
        yield
        return

    def bare(self: Any) -> None:
        graph: Any = V.graph
        inputs, graph.graph_inputs = graph.graph_inputs, {}
        try:
            written(self)
        finally:
            graph.graph_inputs = inputs

    setattr(CppWrapperCpu, name, bare)
    try:
        yield
    finally:
        setattr(CppWrapperCpu, name, written)


def compile_ahead(
    module: fx.GraphModule, inputs: Sequence[torch.Tensor], path: str | os.PathLike[str]
) -> None:
    """Compile a flat functional graph to a package of native code.

    Relies on `aoti_compile_and_package`. With `dynamic_threads` the code asks for the number of
    threads when it runs, instead of having that of the machine it was compiled on. Checks of every
    input are left out, see `without_input_checks`.

    Args:
        module: of functions and placeholders; left as it is.
        inputs: one for each placeholder; their shapes, dtypes, devices and strides are kept.
        path: of the package, ending in .pt2.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 warns about itself
        warnings.simplefilter("ignore", FutureWarning)
        import torch._inductor as inductor

        library: Any = inductor
        with torch.no_grad(), torch._C._DisableAutocast(), without_input_checks():
            program = torch.export.export(written(module), tuple(inputs), strict=False)
            library.aoti_compile_and_package(
                program,
                package_path=os.fspath(path),
                inductor_configs={"cpp.dynamic_threads": True},
            )


def inductor_lacks(device: torch.device) -> str | None:
    """What Inductor misses on this machine for a kind of device; None where it misses nothing.

    Relies on `get_cpp_compiler` raising `InvalidCxxCompiler`, and on `has_triton`.
    """
    if device.type == "cpu":
        from torch._inductor import config
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            tried = sorted({str(name) for name in config.cpp.cxx if name})
            found = f"no C++ compiler is found (tried {', '.join(tried)}"
            return f"{found}; the variable CXX names another)"
        return None
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "triton is missing, or too new for this GPU"
    return f"device {device.type!r} runs no kernels"


def inductor_compiler() -> tuple[str, Path]:
    """The C++ compiler that Inductor calls, and the folder in which it keeps what that makes.

    Relies on `get_cpp_compiler` and `cache_dir`; that there is one, see `inductor_lacks`.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return get_cpp_compiler(), Path(cache_dir())


def inductor_settings() -> str:
    """What Inductor's code depends on beside the graph, as text."""
    return (
        f"threads {torch.get_num_threads()}, matmul {torch.get_float32_matmul_precision()}, "
        f"deterministic {torch.are_deterministic_algorithms_enabled()}"
    )
