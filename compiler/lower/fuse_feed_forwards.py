"""fuse-feed-forwards: gated feed-forwards become one call each, from norm to sum, on any device.

rewrite: add(y, linear(mul(slice(u), gelu(slice(u))), w)), u = linear(layer_norm(x), v)
         -> turbo4d.gated_feed_forward(x, ..., add=y)
Requires: float32 or a half type throughout, weights without gaps. Norm and sum are taken in where
nothing else reads what lies between.
Ensures: the last call of each place keeps its name.
Error: rounding.
"""

from __future__ import annotations

from torch import fx
from turbo4d.passes.base import erase_unused
from turbo4d.runtime.engines.triton_tuning import DTYPES

from .fuse_blocks import feed_forward
from .places import aten, value_of

_KEPT: tuple[str, ...] = ()  # the graph is the lowering's own: no name in it must stay


def fuse_feed_forwards(graph: fx.Graph) -> int:
    """Fuse what fits; gives how many there were.

    Args:
        graph: canonical; changed in place.
    """
    found = 0
    for node in graph.find_nodes(op="call_function", target=aten.linear.default):
        place = feed_forward(node, _KEPT, _takes)
        if place is not None:
            place.write(_KEPT)
            found += 1
    if found:
        erase_unused(graph)
        graph.lint()
    return found


def _takes(first: fx.Node, last: fx.Node) -> bool:
    """Whether the kernels take what lies between two linears."""
    given = [value_of(each) for each in (*first.args, *last.args) if isinstance(each, fx.Node)]
    weights = [value_of(each) for call in (first, last) for each in call.args[1:] if each]
    kinds = {value.dtype for value in given}
    dense = all(weight.is_contiguous() for weight in weights)
    return len(kinds) == 1 and kinds.issubset(DTYPES) and dense
