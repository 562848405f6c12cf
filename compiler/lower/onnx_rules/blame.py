"""blame: where a call that cannot be lowered stands, and what could remove it."""

from __future__ import annotations

from typing import Any

from torch import fx

from .writing import args_of, aten, shape_of

_PRUNING = {
    aten.sort.stable, aten.sort.default, aten.topk.default, aten.index_select.default,
    aten.index_copy.default,
}  # fmt: skip


def place_of(node: fx.Node) -> str:
    """A call's name in the canonical graph, and its module where the capture kept it."""
    module = node.meta.get("module")
    return f"%{node.name}" + (f" in module {module!r}" if module else "")


EAGER = "write it otherwise in the model, or choose lowering 'eager'"
AHEAD = "write it otherwise in the model: whatever its target, a bundle's graphs are ONNX"


def remedy_of(node: fx.Node, otherwise: str = EAGER) -> str:
    """What takes a call out of the graph: a pass and when it does, or a change of the model.

    Args:
        node: the call.
        otherwise: what to do where no pass removes it.
    """
    if node.target in _PRUNING:
        return "prune-tokens writes such calls; a plan without prune has none"
    if node.target is aten.scaled_dot_product_attention.default:
        keys: Any = args_of(node)[1]
        if shape_of(keys)[-2] == 1:
            return "fold-single-key-attention removes it; plan 'exact' has that pass on"
    return f"no pass removes it; {otherwise}"
