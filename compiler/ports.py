"""ports: where a value of the stream enters and leaves a region, and what its slot holds."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import fx
from turbo4d.compiler.flow import Flow, Segment

aten = torch.ops.aten
Form = Literal["sum", "gated", "difference", "exit"]

# Through these a value goes on as it is, or scaled and moved by others.
SUMS = (
    aten.add.Tensor, aten.sub.Tensor, aten.lerp.Tensor, aten.lerp.Scalar, aten.addcmul.default,
)  # fmt: skip
SCALINGS = (aten.mul.Tensor, aten.div.Tensor, aten.mul.Scalar, aten.div.Scalar)
SHAPES = (
    aten.reshape.default, aten.permute.default, aten.unsqueeze.default, aten.squeeze.dim,
    aten.clone.default, aten._to_copy.default,
)  # fmt: skip


@dataclass(frozen=True)
class Port:
    """One value of a region's cuts, in the canonical graph's node names.

    Args:
        entry: the value that comes in; it may lie off the stream, as the text does before the
            first joint attention. None where the value is made inside.
        exit: the value that goes on.
        value: the node whose place a slot takes: for "sum" the residual, for "gated" what is
            behind its gate, else the exit.
        form: what the slot holds. "sum": `value`, where `exit = add(entry, value)`. "gated":
            `value`, where a gate of the noise level scales it before it is added (`gated.py`).
            "difference": exit minus entry, which agree in shape and dtype; no node of the graph is
            that. "exit": the exit.
        shape: of the slot.
        dtype: of the slot.
    """

    entry: str | None
    exit: str
    value: str
    form: Form
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size_bytes(self) -> int:
        """Of the slot."""
        return prod(self.shape) * self.dtype.itemsize


def port_of(entry: fx.Node | None, exit: fx.Node, value: fx.Node, *, whole: bool = False) -> Port:
    """The port between two values.

    Args:
        entry: None where the value is made inside.
        exit: the value that goes on.
        value: the residual, where `exit = entry + value`; else `exit`.
        whole: keep the exit itself, whatever it is made of: a level or the core.
    """
    form: Form = "exit"
    if entry is not None and not whole:
        if value is not exit:
            form = "sum"
        elif agree(entry, exit):
            form = "difference"
    held = value.meta["val"]
    return Port(
        entry=entry.name if entry is not None else None,
        exit=exit.name,
        value=value.name,
        form=form,
        shape=tuple(int(side) for side in held.shape),
        dtype=held.dtype,
    )


def agree(entry: fx.Node, exit: fx.Node) -> bool:
    """Whether two values can be subtracted and stand for each other."""
    a, b = entry.meta["val"], exit.meta["val"]
    return bool(a.shape == b.shape and a.dtype == b.dtype)


def summed(flow: Flow, entry: int, exit: int) -> Segment:
    """The segment between two values, as a sum where the exit is `entry + value`."""
    node = flow.nodes[exit]
    sides = [flow.index.get(operand.name, -1) for operand in node.all_input_nodes]
    plain_sum = node.target is aten.add.Tensor and node.kwargs.get("alpha", 1) == 1
    if plain_sum and entry in sides and len(sides) == 2:
        return Segment(entry, exit, sides[1 - sides.index(entry)])
    return Segment(entry, exit, exit)


def carried(flow: Flow, exit: fx.Node) -> list[fx.Node]:
    """The values that go on to `exit` in sums, scalings and changes of shape alone, latest first.

    A residual block does that to its entry, and so does a blend of a block with what came in.
    """
    found: dict[fx.Node, None] = {}
    waiting = [exit]
    while waiting:
        for operand in passed_on(flow, waiting.pop()):
            if operand not in found:
                found[operand] = None
                waiting.append(operand)
    return list(found)


def passed_on(flow: Flow, node: fx.Node) -> list[fx.Node]:
    """The operands of a sum, a scaling or a change of shape that go on as they are, or scaled."""
    if node.target is aten.addcmul.default:
        return [operand for operand in node.args[:1] if isinstance(operand, fx.Node)]
    if node.target in SUMS:
        return [operand for operand in node.args[:2] if isinstance(operand, fx.Node)]
    if node.target in (*SCALINGS, *SHAPES):
        # What scales it comes from outside: where both depend on the sample it is a gate.
        operands = [operand for operand in node.args[:2] if isinstance(operand, fx.Node)]
        onward = [operand for operand in operands if operand.name in flow.index] or operands
        return onward if len(onward) == 1 else []
    return []
