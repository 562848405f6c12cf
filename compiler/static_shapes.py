"""A graph that Dynamo made for any size becomes one for the sizes of this call.

torch.compile, left to itself, compiles the second shape it sees for every shape to come, and hands
the sizes over as arguments. An engine is for one shape: reading a size here makes Dynamo guard it,
so that each shape is compiled once, and finds its graph again when it comes back.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from . import compat, dynamo_compat


def made_static(
    gm: fx.GraphModule, example_inputs: Sequence[Any], *, sizes_alone: bool = True
) -> tuple[fx.GraphModule, list[Any], list[int]]:
    """The graph with its sizes as numbers; what it was made of stays as it is.

    Args:
        gm: Dynamo's graph.
        example_inputs: its flat arguments, sizes among them.
        sizes_alone: whether an integer that is no tensor's size stays an argument.

    Returns:
        The graph, its arguments without the sizes, and for each its position among all.
    """
    nodes = gm.graph.find_nodes(op="placeholder")
    sizes = {
        node.name: int(value)
        for node, value in zip(nodes, example_inputs, strict=True)
        if isinstance(value, torch.SymInt) and (_is_size(node) or not sizes_alone)
    }
    kept = [index for index, node in enumerate(nodes) if node.name not in sizes]
    if not sizes:
        return gm, list(example_inputs), kept
    static = fx.GraphModule(gm, copy.deepcopy(gm.graph))
    for node in static.graph.find_nodes(op="placeholder"):
        if node.name not in sizes:
            continue
        for user in [*node.users]:
            number = {node: sizes[node.name]}
            user.args = fx.map_arg(user.args, lambda n, number=number: number.get(n, n))
            user.kwargs = fx.map_arg(user.kwargs, lambda n, number=number: number.get(n, n))
        static.graph.erase_node(node)
    static.recompile()
    return static, [compat.fixed(example_inputs[index]) for index in kept], kept


def _is_size(node: fx.Node) -> bool:
    return ".size()[" in (dynamo_compat.source_of(node) or "")
