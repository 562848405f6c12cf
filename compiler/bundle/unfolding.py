"""unfolding: the graph of all variants as that of one, its flags known.

rewrite: If(skip, then, else) -> the nodes of the branch that the flag takes, in the graph itself
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor


def unfold(library: Any, model: Any, given: Mapping[str, Tensor]) -> None:
    """Put the branch that is taken in the place of every `If`; the model is changed.

    Args:
        library: the package onnx.
        model: whose conditions are its inputs.
        given: by name of an input, flags among them.
    """
    nodes = [*_unfolded(library, model.graph.node, given)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _unfolded(library: Any, nodes: Sequence[Any], given: Mapping[str, Tensor]) -> Iterator[Any]:
    for node in nodes:
        if node.op_type != "If":
            yield node
            continue
        wanted = "then_branch" if bool(given[node.input[0]]) else "else_branch"
        branch = next(each.g for each in node.attribute if each.name == wanted)
        yield from _unfolded(library, branch.node, given)
        for inside, name in zip(branch.output, node.output, strict=True):
            yield library.helper.make_node("Identity", [inside.name], [name])
