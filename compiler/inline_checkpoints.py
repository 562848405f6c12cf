"""inline-checkpoints: what a forward hands to torch.utils.checkpoint, as a part of its graph.

    rewrite:  %y = tag_activation_checkpoint(%body, %x)       # body: a graph of its own
       ->     %y = the calls of body on %x

Requires  Dynamo's graph.
Ensures   no call of the operator is left, in bodies neither.
Error     exact: a checkpoint computes again in the backward, of which a denoiser has none.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

from torch import fx

from . import dynamo_compat


def inlined(gm: fx.GraphModule) -> fx.GraphModule:
    """The graph with every checkpoint opened; what it was made of stays as it is."""
    if not any(dynamo_compat.is_checkpoint(node.target) for node in gm.graph.nodes):
        return gm
    opened = fx.GraphModule(gm, copy.deepcopy(gm.graph))
    for node in [*opened.graph.nodes]:
        if dynamo_compat.is_checkpoint(node.target):
            _open(opened, node)
    opened.graph.eliminate_dead_code()
    opened.recompile()
    return opened


def _open(gm: fx.GraphModule, node: fx.Node) -> None:
    held, *operands = node.args
    path = str(held.target)  # type: ignore[union-attr]
    body = inlined(gm.get_submodule(path))  # type: ignore[arg-type]
    setattr(gm, path, body)
    env: dict[fx.Node, Any] = dict(
        zip(body.graph.find_nodes(op="placeholder"), operands, strict=True)
    )
    with gm.graph.inserting_before(node):
        for inner in body.graph.nodes:
            if inner.op in ("placeholder", "output"):
                continue
            env[inner] = gm.graph.node_copy(inner, env.__getitem__)
            if inner.op == "get_attr":
                env[inner].target = f"{path}.{inner.target}"
    results: Any = fx.map_arg(body.graph.output_node().args[0], env.__getitem__)
    for user in [*node.users]:
        if user.target is operator.getitem:
            user.replace_all_uses_with(results[user.args[1]])
            gm.graph.erase_node(user)
    if node.users:
        node.replace_all_uses_with(results)
    gm.graph.erase_node(node)
