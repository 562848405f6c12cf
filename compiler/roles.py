"""Which input is the sample, which the level, and which nodes stand on the sample's path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import fx
from turbo4d.compiler.errors import CaptureError
from turbo4d.compiler.flops import MULTIPLIERS
from turbo4d.compiler.ir import Capture, Placeholder
from turbo4d.compiler.node_values import shape_of

aten = torch.ops.aten
# What arguments are called matters only where the graph treats several of them alike.
_SAMPLES = frozenset({"sample", "hidden_states", "latents", "latent", "x", "x_t", "noisy_latents"})
_LEVELS = frozenset(
    {"timestep", "timesteps", "t", "sigma", "sigmas", "noise_level", "c_noise", "log_sigma"}
)


@dataclass(frozen=True)
class Roles:
    """What the inputs are, as positions in the capture's table.

    Args:
        sample: the input with the output's latent shape.
        level: the input that reaches the sinusoidal embedding; None where there is none, or
            several that nothing tells apart.
        conditioning: what stays the same for a run: every other input, but for those that the
            graph cannot tell from a sample or a level. They are taken to change at every step,
            which is slower and never wrong; `invariant={name: True}` says that one does not.
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
        CaptureError: where no input, or more than one, can be the sample.
    """
    graph = capture.module.graph
    nodes = list(graph.find_nodes(op="placeholder"))
    inputs = [index for index, row in enumerate(capture.table) if row.kind == "input"]
    samples = _samples(capture, inputs)
    sample = _sample(capture, samples, nodes)
    level = find_level(capture, {index: nodes[index] for index in inputs if index != sample})
    changing = {*samples, level, *numbers(capture, inputs)}
    return Roles(
        sample=sample,
        level=level,
        conditioning=tuple(index for index in inputs if index not in changing),
        stream=frozenset(node.name for node in reached([nodes[sample]])),
    )


def numbers(capture: Capture, inputs: Sequence[int]) -> list[int]:
    """The inputs that hold a number for each image, and any that is called a level.

    Such a number may be a level that no sinusoid takes, or a guidance scale that one does.
    """
    single = [index for index in inputs if prod(capture.table[index].shape[1:]) == 1]
    return [*single, *_called(capture, inputs, _LEVELS)]


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


def _samples(capture: Capture, inputs: Sequence[int]) -> list[int]:
    """The inputs with the output's latent shape, those that fit it best first."""
    outputs: Any = capture.module.graph.output_node().args[0]
    wanted = shape_of(outputs[0]) if outputs else ()
    differing: dict[int, int] = {}
    for index in inputs:
        shape = capture.table[index].shape
        if len(shape) == len(wanted) and shape[:1] == wanted[:1] and shape[-2:] == wanted[-2:]:
            differing[index] = sum(a != b for a, b in zip(shape, wanted, strict=True))
    found = [index for index, count in differing.items() if count <= 1]
    if not found:
        raise CaptureError(
            f"no input has the output's latent shape {wanted}; "
            f"the inputs are {_listed(capture.inputs)}."
        )
    return sorted(found, key=lambda index: differing[index])


def _sample(capture: Capture, found: Sequence[int], nodes: Sequence[fx.Node]) -> int:
    """That of them which meets the others as it came, is called a sample, or fits the output."""
    first = found[0]
    best = [index for index in found if capture.table[index].shape == capture.table[first].shape]
    for left in (_as_they_came(found, nodes), _called(capture, found, _SAMPLES), best):
        if len(left) == 1:
            return left[0]
    outputs: Any = capture.module.graph.output_node().args[0]
    raise CaptureError(
        f"{len(found)} inputs have the output's latent shape {shape_of(outputs[0])}: "
        f"{_listed(capture.table[index] for index in found)}; wanted one sample."
    )


def _as_they_came(found: Sequence[int], nodes: Sequence[fx.Node]) -> list[int]:
    """Those that come to where all meet without a weight multiplied in on the way."""
    meeting = set(reached([nodes[found[0]]]))
    for index in found[1:]:
        meeting &= set(reached([nodes[index]]))
    place = next((node for node in nodes[0].graph.nodes if node in meeting), None)
    if place is None:
        return []
    operands = place.all_input_nodes
    return [i for i in found if not _unweighted(nodes[i]).isdisjoint(operands)]


def _called(capture: Capture, found: Iterable[int], names: frozenset[str]) -> list[int]:
    """Those whose argument has one of some names: the last word of `cond['t']` is t."""
    words = {index: re.findall(r"\w+", capture.table[index].target)[-1:] for index in found}
    return [index for index, word in words.items() if not names.isdisjoint(word)]


def find_level(capture: Capture, candidates: Mapping[int, fx.Node]) -> int | None:
    """The input that reaches the sinusoidal embedding, where one alone can be the level."""
    found = [index for index, node in candidates.items() if _reaches_sinusoid(node)]
    if len(found) > 1:
        # Positions reach sinusoids too; a level is one number, or one per image.
        named = _called(capture, found, _LEVELS)
        found = named or [index for index in found if len(capture.table[index].shape) <= 1]
    return found[0] if len(found) == 1 else None


def _reaches_sinusoid(start: fx.Node) -> bool:
    """Through element-wise and shape operators alone."""
    sinusoids = (aten.cos.default, aten.sin.default)
    return any(user.target in sinusoids for node in _unweighted(start) for user in node.users)


def _unweighted(start: fx.Node) -> set[fx.Node]:
    """What depends on a value without a weight multiplied in on the way."""
    seen = {start}
    waiting = [start]
    while waiting:
        for user in waiting.pop().users:
            if user.op == "call_function" and user not in seen and user.target not in MULTIPLIERS:
                seen.add(user)
                waiting.append(user)
    return seen


def _listed(rows: Iterable[Placeholder]) -> str:
    return ", ".join(sorted(f"{row.target!r} {row.shape}" for row in rows))
