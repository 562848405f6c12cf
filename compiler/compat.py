# pyright: reportPrivateUsage=false
"""Everything private of torch that the compiler uses, with what it relies on.

What is private of Inductor stands in `lower/compat.py`.

Written against torch 2.13; the shapes of 2.11 and 2.12 are handled where they differ.
"""

from __future__ import annotations

import copy
import inspect
import math
import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from torch import _refs, fx, nn
from torch._decomp import _should_decompose_because_unsafe_op
from torch._dynamo.exc import ShortenTraceback
from torch._dynamo.symbolic_convert import InstructionTranslator
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_AMP: Any = torch.amp
_TORCH_ITSELF: Any = torch
_FUNCTIONS = ("sqrt", "log", "log2", "exp", "sin", "cos", "tan", "tanh", "atan")
_TORCH = str(Path(torch.__file__).parent) + os.sep


@dataclass(frozen=True)
class Traced:
    """What the ahead-of-time trace of a flat graph gives.

    Args:
        module: functional ATen; composite operators such as attention and linear stay whole.
        mutated: positions of the flat inputs that the original graph writes to.
    """

    module: fx.GraphModule
    mutated: tuple[int, ...]


def trace(module: fx.GraphModule, inputs: Sequence[Any]) -> Traced:
    """Trace a flat graph once more, functionally and before dispatch.

    Relies on `aot_export_module(pre_dispatch=True)`: it keeps scaled_dot_product_attention,
    linear and layer_norm whole, and reports a write to an input as an extra leading output.
    """
    # It takes as long to import as all of the compiler: only who traces pays that.
    from torch._functorch.aot_autograd import aot_export_module

    with torch.no_grad():
        traced, signature = aot_export_module(
            _switching(module), list(inputs), trace_joint=False, pre_dispatch=True
        )
    names: list[str] = [str(name) for name in signature.user_inputs]
    written: Mapping[str, str] = getattr(signature, "user_inputs_to_mutate", None) or {}
    mutated = tuple(names.index(name) for name in written.values())
    if not isinstance(traced, fx.GraphModule):
        raise TypeError(f"aot_export_module returned {type(traced).__name__}, wanted GraphModule")
    return Traced(traced, mutated)


def tracing_state() -> str | None:
    """The switches of torch that `trace` may read, as text; None under a mode that we do not know.

    Relies on `_len_torch_dispatch_stack` and `_len_torch_function_stack`. A processor's abilities
    are among the switches, since a convolution chooses its result's strides by them.
    """
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        return None
    facts = (
        torch.__version__,
        torch.version.git_version,
        torch.get_default_dtype(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
        torch.backends.cudnn.deterministic,
        torch.backends.cpu.get_cpu_capability(),
        torch.cuda.get_device_name(0) if torch.cuda.is_initialized() else "",
        *(
            torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else ""
            for device in ("cpu", "cuda")
        ),
    )
    return " ".join(map(str, facts))


def _switching(module: fx.GraphModule) -> fx.GraphModule:
    """The graph with its switches of autocast such that a trace carries them out.

    Relies on a trace noting `torch.amp._enter_autocast` without a switch, but both of
    `torch.autocast`.
    """
    instead: dict[Any, Any] = {_AMP._enter_autocast: _enter, _AMP._exit_autocast: _exit}
    if not any(node.target in instead for node in module.graph.nodes):
        return module
    changed = fx.GraphModule(module, copy.deepcopy(module.graph))
    for node in changed.graph.nodes:
        node.target = instead.get(node.target, node.target)
    changed.recompile()
    return changed


def _enter(device: str, *how: Any) -> torch.autocast:
    mode = torch.autocast(device, *how)
    mode.__enter__()
    return mode


def _exit(mode: torch.autocast) -> None:
    mode.__exit__(None, None, None)


def switches_autocast(target: object) -> bool:
    """Whether a node's target enters or leaves an autocast.

    Relies on the two functions by which a trace before dispatch notes both.
    """
    return target in (_AMP._enter_autocast, _AMP._exit_autocast)


@contextmanager
def following_autocast() -> Generator[Callable[[fx.Node], bool]]:
    """A context that gives a function: told the nodes of a graph in order, it switches as they do.

    The function says whether a node was a switch. What is left open is closed in the end.
    """
    entered: dict[fx.Node, Any] = {}

    def follow(node: fx.Node) -> bool:
        if node.target is _AMP._enter_autocast:
            entered[node] = _AMP._enter_autocast(*node.args)
        elif node.target is _AMP._exit_autocast:
            opened: Any = node.args[0]
            _AMP._exit_autocast(entered.pop(opened))
        else:
            return False
        return True

    try:
        yield follow
    finally:
        for mode in reversed(entered.values()):
            _AMP._exit_autocast(mode)


class _CopyWatch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.found: dict[int, torch.dtype] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func is torch.ops.aten._to_copy.default and "dtype" in (kwargs or {}):
            self.found.setdefault(id(args[0]), kwargs["dtype"])
        return func(*args, **(kwargs or {}))


def copies_in(op: Any, args: Any, kwargs: Any) -> dict[int, torch.dtype]:
    """The first dtype that a call copies each tensor to, by the tensor's `id`.

    Relies on a dispatch mode seeing what autocast calls below it. Its cache, which keeps casts of
    weights, is off meanwhile.
    """
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad(), _CopyWatch() as watch:
            op(*args, **kwargs)
    finally:
        torch.set_autocast_cache_enabled(cached)
    return watch.found


def is_fake(value: object) -> bool:
    """Whether a tensor has a shape and a dtype but no data."""
    return isinstance(value, FakeTensor)


def fixed(value: Any) -> Any:
    """A tensor without data whose sizes are numbers, where they were symbols that stand for some.

    Relies on a symbol's `int()`, which settles what it stands for and makes Dynamo guard it.
    """
    if not isinstance(value, FakeTensor):
        return value
    shape, strides = list(value.shape), list(value.stride())
    if all(type(size) is int for size in (*shape, *strides)):
        return value
    with value.fake_mode:
        return torch.empty_strided(
            [int(size) for size in shape],
            [int(stride) for stride in strides],
            dtype=value.dtype,
            device=value.device,
        )


def is_python_float(node: fx.Node) -> bool:
    """Whether a placeholder of Dynamo's graph holds a float of the caller's, as a tensor.

    Relies on `meta["grapharg"].pass_arg_as_tensor`, which Dynamo sets for floats that it was not
    told to take for constants.
    """
    return bool(getattr(node.meta.get("grapharg"), "pass_arg_as_tensor", False))


def number_like(example_inputs: Sequence[Any], dtype: torch.dtype) -> torch.Tensor:
    """A tensor without axes or data, of the mode that a graph's other arguments are of."""
    modes = [value.fake_mode for value in example_inputs if isinstance(value, FakeTensor)]
    with modes[0] if modes else nullcontext():
        return torch.empty((), dtype=dtype)


def tensor_function_of(target: Any) -> Callable[..., Any] | None:
    """What of torch computes on tensors what a function computes on Dynamo's numbers.

    Relies on the names of `torch.sym_sqrt` and its kin, and on `torch.sym_float`.
    """
    if target is _TORCH_ITSELF.sym_float:
        return torch.Tensor.double
    name = str(getattr(target, "__name__", ""))
    plain = name.removeprefix("_sym_")
    homes = (math, torch)
    known = plain in _FUNCTIONS and any(getattr(home, name, None) is target for home in homes)
    return getattr(torch, plain) if known else None


def makes_tensor(target: object) -> bool:
    """Whether a node's target is torch.tensor, or what Dynamo puts in its place for its numbers."""
    its, replacement = _TORCH_ITSELF, cast("Any", _refs).tensor
    return target in (its.tensor, its.as_tensor, its.scalar_tensor, replacement)


def fake_mode() -> FakeTensorMode:
    """A context in which tensors are made with a shape, strides and a device, but no data."""
    return FakeTensorMode()


def late_module(root: nn.Module, graph: fx.Graph, class_name: str = "Graph") -> fx.GraphModule:
    """A graph as a module whose Python is written when it is first called.

    Most graphs are only rewritten. Relies on `_LazyGraphModule`, in which `recompile` no more than
    notes that the Python is stale.
    """
    return _LazyGraphModule(root, graph, class_name)


def written(module: fx.GraphModule) -> fx.GraphModule:
    """The same module, its Python written: for who looks at its forward, or calls it often."""
    _LazyGraphModule.force_recompile(module)
    return module


def is_operator(target: object) -> bool:
    """Whether a node's target is an overload of a dispatched operator, such as aten.add.Tensor."""
    return isinstance(target, torch._ops.OpOverload)


def is_higher_order(target: object) -> bool:
    """Whether a node's target takes graphs as arguments."""
    return isinstance(target, torch._ops.HigherOrderOperator)


def is_checkpoint(target: object) -> bool:
    """Whether a node's target is Dynamo's call of torch.utils.checkpoint."""
    return target is torch.ops.higher_order.tag_activation_checkpoint


def flatten_with_path(tree: object) -> list[tuple[tuple[Any, ...], Any]]:
    """Every leaf of a nest of tuples, lists and dicts, with the keys that lead to it."""
    leaves, _ = pytree.tree_flatten_with_path(tree)
    return leaves


def marked_open(tensor: torch.Tensor) -> tuple[int, ...]:
    """Axes of a tensor whose size Dynamo was told to leave open.

    Relies on the attributes that `mark_dynamic` and `mark_unbacked` set.
    """
    names = ("_dynamo_dynamic_indices", "_dynamo_unbacked_indices")
    return tuple(sorted({axis for name in names for axis in getattr(tensor, name, ())}))


def unflattened(spec: Any, tensors: Sequence[Any], literals: Mapping[int, object]) -> Any:
    """The result of an exported call: tensors, and what is none at its positions, as a nest."""
    left = iter(tensors)
    leaves = [literals[at] if at in literals else next(left) for at in range(spec.num_leaves)]
    return pytree.tree_unflatten(leaves, spec)


def with_leaves(tree: Any, leaves: Sequence[Any]) -> Any:
    """The same nest of tuples, lists, dicts and what is registered as one, with other leaves."""
    return pytree.tree_unflatten(leaves, pytree.tree_flatten(tree)[1])


def without_aliases(tree: Any) -> Any:
    """The same nest of tuples, lists and dicts, a tensor that comes again copied."""
    seen: set[int] = set()

    def own(leaf: object) -> object:
        if isinstance(leaf, torch.Tensor) and id(leaf) in seen:
            return leaf.clone()
        seen.add(id(leaf))
        return leaf

    return pytree.tree_map(own, tree)


def writes(op: Any) -> bool:
    """Whether an operator writes to one of its arguments."""
    return op._schema.is_mutable


def opens_up(op: Any) -> bool:
    """Whether `trace` would replace an operator by those it is made of.

    Relies on functionalisation's rule: a composite operator that may alias or write is opened up,
    every other one stays whole.
    """
    if writes(op):
        return True
    if not torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd"):
        return False
    return _should_decompose_because_unsafe_op(op) or any(
        argument.alias_info is not None for argument in op._schema.arguments
    )


def arguments_of(op: Any) -> tuple[tuple[str, bool, bool, object], ...]:
    """For each argument in order: name, keyword-only, has a default, the default."""
    return tuple(
        (
            argument.name,
            bool(argument.kwarg_only),
            argument.has_default_value(),
            argument.default_value,
        )
        for argument in op._schema.arguments
    )


def source_of(node: fx.Node) -> str | None:
    """Where Dynamo read a placeholder from, as a Python expression; None for a foreign graph.

    Relies on `meta["grapharg"].source.name`: a property in 2.13, a method before.
    """
    argument = node.meta.get("grapharg")
    source = getattr(argument, "source", None)
    if source is None:
        return None
    name: Any = source.name
    return str(name()) if callable(name) else name


def module_of(node: fx.Node) -> str | None:
    """The path of the module whose forward made a traced call; None where the trace has no say.

    Relies on `meta["nn_module_stack"]`, outermost first: the last entry's path is Dynamo's
    expression (`L['self'].down[0].norm`) or torch.export's dotted name.
    """
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    if not stack:
        return None
    path = str([*stack.values()][-1][0])
    named = re.sub(r"\._modules\['([^']*)'\]|\[['\"]?([^]'\"]*)['\"]?\]", r".\1\2", path)
    return re.sub(r"^L?\.?(self|fn)\b\.?", "", named).strip(".") or None


def compiling_module() -> torch.nn.Module | None:
    """Inside a torch.compile backend, the module being compiled, where Dynamo shows it.

    Relies on the current translator's frame: the module is its only local that is one (`self`, or
    `fn` of Dynamo's own wrapper), or the first of the `args` of a decorator around forward.
    """
    try:
        translator: Any = InstructionTranslator.current_tx()
    except AttributeError:
        return None
    held: Mapping[str, Any] = getattr(translator, "f_locals", {})
    first = tuple(held.get("args") or ())[:1]
    modules = [value for value in (*held.values(), *first) if isinstance(value, torch.nn.Module)]
    return modules[0] if len(modules) == 1 else None


@dataclass(frozen=True)
class Frame:
    """The frame whose graph Dynamo hands to a backend.

    Args:
        name: of its function, as the user wrote it.
        line: at which the graph begins, where that is not the function's first; else None.
        inner: whether a frame of the same compiled call stands around it.
        broken: whether the graph ends where Dynamo could not go on.
    """

    name: str
    line: int | None
    inner: bool
    broken: bool


def compiling_frame() -> Frame | None:
    """Inside a torch.compile backend, the frame being compiled; None elsewhere.

    Relies on the names of resumed functions, `torch_dynamo_resume_in_<function>_at_<line>`; on
    `compile_subgraph_reason.graph_break`; and on `compile_wrapper` being the frame that calls what
    is compiled, with nothing but torch's own frames between where that is the outermost.
    """
    try:
        translator: Any = InstructionTranslator.current_tx()
    except AttributeError:
        return None
    name = str(translator.f_code.co_name)
    resumed = re.fullmatch(r"torch_dynamo_resume_in_(.*)_at_(\d+)", name)
    reason = getattr(translator.output, "compile_subgraph_reason", None)
    return Frame(
        name=resumed[1] if resumed else name,
        line=int(resumed[2]) if resumed else None,
        inner=_stands_within(inspect.currentframe()),
        broken=bool(reason is not None and reason.graph_break),
    )


def _stands_within(frame: FrameType | None) -> bool:
    between: bool | None = None  # None below Dynamo's own frames
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if file.endswith("_dynamo/convert_frame.py"):
            between = False
        elif name == "compile_wrapper" and file.endswith("_dynamo/eval_frame.py"):
            return bool(between)
        elif between is not None and not file.startswith(_TORCH):
            between = True
        frame = frame.f_back
    return False


def through_dynamo(error: Exception, frame: FrameType | None) -> Exception:
    """The same error, of a type that torch.compile lets pass instead of wrapping it.

    An exception of a backend reaches the caller as `BackendCompilerFailed`, ours only in its text.
    What is also a `ShortenTraceback` passes as it is, its traceback cut down to `frame` and below;
    so `except NoSitesError` works around a compiled call.

    Relies on `OutputGraph.call_user_compiler` and `_convert_frame` re-raising `ShortenTraceback`.
    """
    kind = type(error)
    bases: Any = (kind, ShortenTraceback)
    both: Any = type(kind.__name__, bases, {"__module__": kind.__module__})
    passing = both(*error.args, first_useful_frame=frame)
    for note in getattr(error, "__notes__", ()):
        passing.add_note(note)
    return passing
