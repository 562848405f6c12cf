"""hoist: split a graph into a prologue, run once a session and stream, and the step that is left.

    rewrite:  %y = op(%x, f(%conditioning, %weight))        # %x is the sample, or the level
       ->     %p = f(%conditioning, %weight)                # the prologue returns it
              %y = op(%x, %prologue_f)                      # the step takes it as a placeholder

Requires  a canonical graph; the placeholders that change from step to step.
Ensures   the step computes nothing from conditioning, weights and constants alone, but views of
          hoisted values, of weights and of inputs, and copies that repeat one (`REPEAT_BYTES`).
Error     none, to the bit: the same operators run on the same values, once instead of each step.

Expressions of weights and constants alone (position embeddings, sigmoid(mix_factor)) are hoisted in
the same way and counted apart, not folded into the graph: weights may be loaded again, or a LoRA
merged into them, after the graph was made, and one graph serves every set of weights.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from turbo4d.compiler.compat import late_module
from turbo4d.compiler.flops import count_flops
from turbo4d.passes.base import add_slot, aten, erase_unused, own_outputs, replace
from turbo4d.passes.compat import aliased_argument
from turbo4d.passes.split_invariant_input import CHANNELS

REPEAT_BYTES = 1 << 20
"""A copy that repeats a smaller value is hoisted up to this size; beyond, each step makes it anew.

What it would save is a write of those bytes at each step; what it costs is to hold them.
"""

Ranges = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Prologue:
    """The graph of everything that depends on conditioning, weights and constants alone.

    Args:
        module: placeholders are the arguments it needs; it returns the hoisted values.
        arg_indices: for each placeholder, its position in the capture's table.
        names: of the hoisted values, as nodes of the exact graph.
        sizes: bytes of each value.
        constants: those of `names` that depend on weights and constants alone.
        flops: of one run.
    """

    module: fx.GraphModule
    arg_indices: tuple[int, ...]
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    constants: frozenset[str]
    flops: int

    @property
    def size_bytes(self) -> int:
        """Of all values, which a session holds for each of its streams."""
        return sum(self.sizes)


def hoist(
    gm: fx.GraphModule,
    inputs: Collection[str],
    varying: Collection[str],
    channels: Mapping[str, Ranges] | None = None,
) -> Prologue:
    """Take everything out of a graph that does not depend on what varies.

    Args:
        gm: becomes the step graph: the placeholders it had, then `prologue_<name>` for each value.
        inputs: names of the placeholders that are arguments of the call, not weights or constants.
        varying: those of them that change from step to step.
        channels: of a varying input, the channels that do not.
    """
    graph = gm.graph
    changes = dependent(graph, varying, channels or {})
    given = dependent(graph, inputs, {})
    bases = _bases(
        [
            node
            for node in graph.nodes
            if node.op == "call_function"
            and node not in changes
            and any(user in changes or user.op == "output" for user in node.users)
        ]
    )
    module, arg_indices = _prologue(graph, bases)
    sizes: list[int] = []
    with torch.no_grad():
        for base in bases:
            value = base.meta["val"]
            sizes.append(value.numel() * value.element_size())
            replace(base, add_slot(graph, f"prologue_{base.name}", base))
        own_outputs(graph)
    erase_unused(graph)
    gm.recompile()
    return Prologue(
        module=module,
        arg_indices=arg_indices,
        names=tuple(base.name for base in bases),
        sizes=tuple(sizes),
        constants=frozenset(base.name for base in bases if base not in given),
        flops=sum(count_flops(module.graph).values()),
    )


def dependent(
    graph: fx.Graph, starts: Collection[str], channels: Mapping[str, Ranges]
) -> set[fx.Node]:
    """The nodes that depend on some placeholders, but for slices within the channels given."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            if node.name in starts:
                found.add(node)
        elif node.op == "call_function" and not found.isdisjoint(node.all_input_nodes):
            if not _keeps_within(node, channels):
                found.add(node)
    return found


def _keeps_within(node: fx.Node, channels: Mapping[str, Ranges]) -> bool:
    """Whether a call takes nothing of an input but channels that do not change."""
    source: Any = node.args[0]
    if node.target is not aten.slice.Tensor or source.name not in channels:
        return False
    axis, first, end = (int(argument) for argument in node.args[1:4])  # type: ignore[arg-type]
    within = any(start <= first and end <= stop for start, stop in channels[source.name])
    return within and axis == CHANNELS


def _bases(frontier: Sequence[fx.Node]) -> list[fx.Node]:
    """What to hoist for the values that the step reads: themselves, or what they are views of."""
    owners = [_owner(node) for node in frontier]
    bases: dict[fx.Node, None] = {}
    for node, held in zip(frontier, owners, strict=True):
        if held.op == "call_function":
            alone = owners.count(held) == 1 and _covers(node, held)
            bases[node if alone else held] = None
    return list(bases)


def _owner(node: fx.Node) -> fx.Node:
    """The node whose memory a value lies in; before it, where that is a large repeat of another."""
    while node.op == "call_function" and node.target is not operator.getitem:
        position = aliased_argument(node.target)
        if position is None or not isinstance(node.args[position], fx.Node):
            break
        node = node.args[position]  # type: ignore[assignment]
    if node.target is aten.clone.default:
        value, source = node.meta["val"], _owner(node.args[0])  # type: ignore[arg-type]
        if value.numel() > source.meta["val"].numel():
            if value.numel() * value.element_size() > REPEAT_BYTES:
                return source
    return node


def _covers(node: fx.Node, held: fx.Node) -> bool:
    """Whether a view shows each element of the memory it lies in once."""
    value = node.meta["val"]
    spread = all(
        stride or side == 1 for side, stride in zip(value.shape, value.stride(), strict=True)
    )
    return spread and value.numel() == held.meta["val"].numel()


def _prologue(graph: fx.Graph, values: Sequence[fx.Node]) -> tuple[fx.GraphModule, tuple[int, ...]]:
    needed = set(values)
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    fresh = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in needed:
            env[node] = fresh.node_copy(node, env.__getitem__)
    fresh.output(tuple(env[value] for value in values))
    module = late_module(torch.nn.Module(), fresh, "Prologue")
    return module, tuple(i for i, node in enumerate(placeholders) if node in needed)
