# pyright: reportPrivateUsage=false
"""Everything private of torch that the compiler uses, with what it relies on.

What is private of Dynamo's graphs stands in `dynamo_compat.py`, of autocast in
`autocast_compat.py`, of Inductor in `lower/compat.py`.

Written against torch 2.13; the shapes of 2.11 and 2.12 are handled where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch._decomp import _should_decompose_because_unsafe_op
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.utils import _pytree as pytree

from .autocast_compat import switching


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
            switching(module), list(inputs), trace_joint=False, pre_dispatch=True
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


def flatten_with_path(tree: object) -> list[tuple[tuple[Any, ...], Any]]:
    """Every leaf of a nest of tuples, lists and dicts, with the keys that lead to it."""
    leaves, _ = pytree.tree_flatten_with_path(tree)
    return leaves


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
