"""Which input is the sample, which the level, and which nodes stand on the sample's path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from turbo4d.compiler.axis_rules import shape_of
from turbo4d.compiler.errors import CaptureError
from turbo4d.compiler.flops import MULTIPLIERS
from turbo4d.compiler.ir import Capture, Placeholder

aten = torch.ops.aten


@dataclass(frozen=True)
class Roles:
    """What the inputs are, as positions in the capture's table.

    Args:
        sample: the input with the output's latent shape.
        level: the input that reaches the sinusoidal embedding, or None.
        conditioning: every other input.
        stream: names of the nodes that depend on the sample.
        channels: of an input that changes, the ranges of channels that the caller declared
            constant; see `invariant.py`.
    """

    sample: int
    level: int | None
    conditioning: tuple[int, ...]
    stream: frozenset[str]
    channels: Mapping[int, tuple[tuple[int, int], ...]] = field(
        default_factory=dict[int, tuple[tuple[int, int], ...]]
    )


def find_roles(capture: Capture) -> Roles:
    """Tell the inputs of a capture apart by what the graph does with them.

    Raises:
        CaptureError: where no input, or more than one, can be the sample or the level.
    """
    graph = capture.module.graph
    nodes = list(graph.find_nodes(op="placeholder"))
    inputs = [index for index, row in enumerate(capture.table) if row.kind == "input"]
    sample = _sample(capture, inputs)
    level = _level(capture, [(index, nodes[index]) for index in inputs if index != sample])
    return Roles(
        sample=sample,
        level=level,
        conditioning=tuple(index for index in inputs if index not in (sample, level)),
        stream=frozenset(node.name for node in reached([nodes[sample]])),
    )


def reached(starts: Iterable[fx.Node]) -> list[fx.Node]:
    """The nodes that depend on `starts`, those included and the output left out."""
    found = dict.fromkeys(starts)
    waiting = list(found)
    while waiting:
        for user in waiting.pop().users:
            if user.op != "output" and user not in found:
                found[user] = None
                waiting.append(user)
    return list(found)


def _sample(capture: Capture, inputs: list[int]) -> int:
    outputs: Any = capture.module.graph.output_node().args[0]
    wanted = shape_of(outputs[0]) if outputs else ()
    ranked: dict[int, list[int]] = {}
    for index in inputs:
        shape = capture.table[index].shape
        if len(shape) == len(wanted) and shape[:1] == wanted[:1]:
            differing = sum(a != b for a, b in zip(shape, wanted, strict=True))
            if differing <= 1 and shape[-2:] == wanted[-2:]:
                ranked.setdefault(differing, []).append(index)
    best = ranked[min(ranked)] if ranked else []
    if len(best) == 1:
        return best[0]
    if not best:
        raise CaptureError(
            f"no input has the output's latent shape {wanted}; "
            f"the inputs are {_listed(capture.inputs)}."
        )
    raise CaptureError(
        f"{len(best)} inputs have the output's latent shape {wanted}: "
        f"{_listed(capture.table[index] for index in best)}; wanted one sample."
    )


def _level(capture: Capture, candidates: list[tuple[int, fx.Node]]) -> int | None:
    found = [index for index, node in candidates if _reaches_sinusoid(node)]
    if len(found) > 1:
        # Positions reach sinusoids too; a level is one number, or one per image.
        found = [index for index in found if len(capture.table[index].shape) <= 1]
    if len(found) > 1:
        raise CaptureError(
            f"{len(found)} inputs reach a sinusoidal embedding: "
            f"{_listed(capture.table[index] for index in found)}; wanted one noise level."
        )
    return found[0] if found else None


def _reaches_sinusoid(start: fx.Node) -> bool:
    """Through element-wise and shape operators alone: no weight is multiplied in on the way."""
    seen = {start}
    waiting = [start]
    while waiting:
        for user in waiting.pop().users:
            if user.target in (aten.cos.default, aten.sin.default):
                return True
            if user.op == "call_function" and user not in seen and user.target not in MULTIPLIERS:
                seen.add(user)
                waiting.append(user)
    return False


def _listed(rows: Iterable[Placeholder]) -> str:
    return ", ".join(sorted(f"{row.target!r} {row.shape}" for row in rows))
