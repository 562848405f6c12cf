"""gated: the values that a block adds to its stream through gates of the noise level.

A transformer that is told the level by its norms and gates (adaptive layer norm zero; Peebles and
Xie, "Scalable Diffusion Models with Transformers", 2023) adds gate x value. The gate is made of the
level alone, costs next to nothing and changes at each step; the value is what costs. With slots of
the values, a step that reuses them computes the gates, and what is added to what, afresh.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import fx
from turbo4d.compiler.flow import Flow, only_for, total
from turbo4d.compiler.ports import SHAPES, Port, carried
from turbo4d.compiler.regions import Region

aten = torch.ops.aten


def with_gates(
    regions: Sequence[Region], flow: Flow, level: fx.Node | None, flops: dict[str, int]
) -> tuple[Region, ...]:
    """The regions, with ports for what is gated in place of the whole residual.

    A chain and its blocks change together or not at all: a block's values are then among its
    chain's. One that can be pruned keeps its residual, whose tokens are one value's.

    Args:
        regions: of a network.
        flow: of its graph.
        level: the placeholder of the noise level, None where it is not known.
        flops: by node name.
    """
    if level is None:
        return tuple(regions)
    nodes: dict[str, fx.Node] = {node.name: node for node in level.graph.nodes}
    made = _made_of(level)
    found: dict[str, Region] = {}
    for chain in regions:
        if chain.kind != "chain":
            continue
        family = [chain, *(r for r in regions if r.kind == "block" and r.parent == chain.name)]
        changed = [_gated(region, flow, nodes, made, flops) for region in family]
        if all(region is not None and region.pruning is None for region in changed):
            found |= {region.name: region for region in changed if region is not None}
    return tuple(found.get(region.name, region) for region in regions)


def _made_of(level: fx.Node) -> set[str]:
    """Names of all that depends on the level."""
    found, waiting = {level.name}, [level]
    while waiting:
        for user in waiting.pop().users:
            if user.name not in found:
                found.add(user.name)
                waiting.append(user)
    return found


def _gated(
    region: Region,
    flow: Flow,
    nodes: dict[str, fx.Node],
    made: Collection[str],
    flops: dict[str, int],
) -> Region | None:
    """The region with the ports of its parts, None where it is no sum of them or none is gated."""
    ports: list[Port] = []
    for port in region.ports:
        parts = _parts(port, flow, nodes, made)
        if parts is None:
            return None
        ports += parts
    if all(port.form == "sum" for port in ports):
        return None
    values = [nodes[port.value] for port in ports]
    needed = only_for(values, [nodes[name] for name in region.entries])
    return replace(
        region,
        ports=tuple(ports),
        nodes=sum(node.name in flow.index for node in needed),
        flops=total(needed, flops),
    )


def _parts(
    port: Port, flow: Flow, nodes: dict[str, fx.Node], made: Collection[str]
) -> list[Port] | None:
    """A port for each value that a residual is the sum of, in order; None where it is no sum."""
    if port.entry is None or port.form == "exit":
        return None
    entry, at = nodes[port.entry], nodes[port.exit]
    found: list[Port] = []
    while at is not entry:
        operands = [one for one in at.args[:2] if isinstance(one, fx.Node)]
        if at.target in SHAPES:
            at = operands[0]
            continue
        onward = [one for one in operands if one is entry or entry in carried(flow, one)]
        plain = at.target is aten.add.Tensor and at.kwargs.get("alpha", 1) == 1
        if not plain or len(operands) != 2 or len(onward) != 1:
            return None
        added = operands[1 - operands.index(onward[0])]
        value = _behind_gate(added, flow, made)
        if value.name not in flow.index:
            return None
        held = value.meta["val"]
        found.append(
            Port(
                entry=onward[0].name,
                exit=at.name,
                value=value.name,
                form="sum" if value is added else "gated",
                shape=tuple(int(side) for side in held.shape),
                dtype=held.dtype,
            )
        )
        at = onward[0]
    return found[::-1]


def _behind_gate(added: fx.Node, flow: Flow, made: Collection[str]) -> fx.Node:
    """What a gate of the level scales before it is added; what is added, where none does."""
    at = added
    while at.target in SHAPES and isinstance(at.args[0], fx.Node):
        at = at.args[0]
    if at.target is not aten.mul.Tensor:
        return added
    sides = [one for one in at.args[:2] if isinstance(one, fx.Node)]
    inner = [one for one in sides if one.name in flow.index]
    gates = [one for one in sides if one.name in made and one.name not in flow.index]
    return inner[0] if len(inner) == len(gates) == 1 else added
