"""branches: some nodes of a graph become one branch of a cond, what stands for them the other.

    rewrite:  %v = f(%x, %w)                              # %v is used elsewhere
              %s = clone(%slot)
       ->     %c = cond(%flag, skipped, computed, (%x, %w, %slot)); %v' = %c[0]

Each branch is a graph of its own and takes every operand, whether it reads it or not. Branches
agree in shape and strides, and return nothing that they were given: what would, is copied.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import fx
from turbo4d.passes.base import COND, aten, emit, layout, own_outputs, owner

from .errors import LowerError


def into_cond(
    gm: fx.GraphModule,
    flag: fx.Node,
    name: str,
    pairs: Sequence[tuple[fx.Node, fx.Node]],
    inside: Collection[fx.Node],
) -> list[fx.Node]:
    """Replace nodes by a cond; the caller recompiles.

    Args:
        gm: changed in place; gains the submodules `skipped_<name>` and `computed_<name>`.
        flag: a boolean scalar; true where the second of each pair is what is wanted.
        name: of the region, for the branches.
        pairs: what is computed, and what stands for it; all of them calls.
        inside: nodes that nothing reads but one another and the first of the pairs.

    Returns:
        One value for each pair, in the place of the first.

    Raises:
        LowerError: something outside lies between two of the values.
    """
    graph = gm.graph
    members = {*inside, *(first for first, _ in pairs)}
    # A part of what another cond gives goes inside with that cond, or not at all.
    members -= {node for node in members if _is_part(node) and node.args[0] not in members}
    agreed = [_alike(graph, *pair, apart=pair[0] not in members) for pair in pairs]
    computed, skipped = ([pair[at] for pair in agreed] for at in (0, 1))
    members |= {*computed}
    others = _private(skipped, members)
    place = {node: at for at, node in enumerate(graph.nodes)}
    operands = sorted(
        {o for node in members | others for o in node.all_input_nodes} - members - others,
        key=place.__getitem__,
    )
    with graph.inserting_before(graph.output_node()):
        ways = [
            graph.get_attr(_attach(gm, f"{way}_{name.replace('.', '_')}", outputs, nodes, operands))
            for way, outputs, nodes in (
                ("skipped", skipped, others),
                ("computed", computed, members),
            )
        ]
        cond = graph.call_function(COND, (flag, *ways, tuple(operands)))
        cond.meta["val"] = tuple(value.meta["val"] for value in skipped)
        values = [graph.call_function(operator.getitem, (cond, at)) for at in range(len(pairs))]
    for (old, _), new, held in zip(pairs, values, skipped, strict=True):
        new.meta["val"] = held.meta["val"]
        old.replace_all_uses_with(new, delete_user_cb=lambda user: user not in members)
    for node in reversed(graph.nodes):
        if node in members or node in others:
            graph.erase_node(node)
            if node.op == "get_attr":  # a branch's own branches went with it
                gm.delete_submodule(str(node.target))
    _in_order(graph, name)
    return values


def _is_part(node: fx.Node) -> bool:
    source: Any = node.args[0] if node.args else None
    return node.target is operator.getitem and source.target is COND


def _alike(
    graph: fx.Graph, computed: fx.Node, skipped: fx.Node, *, apart: bool
) -> tuple[fx.Node, fx.Node]:
    """Both values, copied where they lie in memory otherwise, in a larger tensor, or outside."""
    whole = owner(computed).meta["val"].numel() == computed.meta["val"].numel() and not apart
    if whole and layout(computed.meta["val"]) == layout(skipped.meta["val"]):
        return computed, skipped
    dense = {"memory_format": torch.contiguous_format}
    with graph.inserting_before(graph.output_node()):
        computed = emit(graph, aten.clone.default, computed, **dense)
        if layout(computed.meta["val"]) != layout(skipped.meta["val"]):
            skipped = emit(graph, aten.clone.default, skipped, **dense)
    return computed, skipped


def _private(values: Iterable[fx.Node], apart: Collection[fx.Node]) -> set[fx.Node]:
    """The values, and the calls that nothing reads but they."""
    found = set(values)
    waiting = list(found)
    while waiting:
        for operand in waiting.pop().all_input_nodes:
            if operand.op == "placeholder" or operand in apart or operand in found:
                continue
            if found.issuperset(operand.users):
                found.add(operand)
                waiting.append(operand)
    return found


def _attach(
    gm: fx.GraphModule,
    name: str,
    outputs: Sequence[fx.Node],
    nodes: Collection[fx.Node],
    operands: Sequence[fx.Node],
) -> str:
    """Add a branch to the module, with the branches it holds itself; gives its name."""
    graph = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    for operand in operands:
        env[operand] = graph.placeholder(operand.name)
        env[operand].meta["val"] = operand.meta["val"]
    for node in gm.graph.nodes:
        if node in nodes:
            env[node] = graph.node_copy(node, env.__getitem__)
    graph.output(tuple(env[value] for value in outputs))
    with torch.no_grad():
        own_outputs(graph)
    held: dict[str, Any] = {
        str(node.target): gm.get_submodule(str(node.target))
        for node in graph.find_nodes(op="get_attr")
    }
    gm.add_submodule(name, fx.GraphModule(held, graph, class_name="Branch"))
    return name


def _in_order(graph: fx.Graph, name: str) -> None:
    """Move each node behind what it reads; the others keep their order."""
    cursor: fx.Node | None = None
    placed: set[fx.Node] = set()
    for first in list(graph.nodes):
        waiting, open_ = [first], set[fx.Node]()
        while waiting:
            node = waiting[-1]
            missing = [o for o in node.all_input_nodes if o not in placed]
            if node in placed or not missing:
                waiting.pop()
                if node not in placed:
                    if cursor is not None:
                        cursor.append(node)
                    cursor = node
                    placed.add(node)
            elif node in open_:
                raise LowerError(
                    f"region {name!r} cannot be a branch: %{missing[0].name} reads one of its "
                    "values and is read inside it; leave the region out of a conditional plan."
                )
            else:
                open_.add(node)
                waiting += missing
