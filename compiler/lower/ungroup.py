"""ungroup: what goes along with an attention is computed where its tokens lie, not in groups.

rewrite: g = reshape(permute(x)), h = rows(g), a = token_attention(h), permute(reshape(rows(a)))
         -> h = rows(x), a = token_attention(view of h), rows(a)
Requires: x dense, channels last. Rows are what treats every token alone: norms, linears, sums,
products, slices of channels.
Ensures: no copy into groups before the attention, and none out of them after it; a value that is
read as groups elsewhere, as a slot is, is put into groups for that alone.
Error: none; the rows of a linear may be summed in another order by the library.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from turbo4d.passes.base import emit, erase_unused, replace
from turbo4d.runtime.gated_feed_forward import OPERATOR as GATED
from turbo4d.runtime.token_attention import OPERATOR

from .lying import Groups, Lying
from .places import aten, given, listed, node_of, value_of

_ADD = 11  # the operator's last argument
_SUMS = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor)
_ROWS = (
    aten.layer_norm.default, aten.linear.default, aten.gelu.default, aten.slice.Tensor, *_SUMS,
    GATED,
)  # fmt: skip
_VIEWS = (aten.permute.default, aten.reshape.default, aten.unsqueeze.default, aten.squeeze.dim)


def ungroup(graph: fx.Graph) -> int:
    """Compute what is around each `token_attention` where its tokens lie.

    Args:
        graph: of a variant, with the operator in it; changed in place.

    Returns:
        How many attentions now read tokens at their strides.
    """
    sweep = _Sweep(_towards(graph))
    with torch.no_grad():
        for node in [*graph.nodes]:
            if node.op == "call_function":
                sweep.take(node)
        sweep.settle()
    if sweep.attentions:
        erase_unused(graph)
        graph.lint()
    return sweep.attentions


def _towards(graph: fx.Graph) -> set[fx.Node]:
    """What an attention's operands are made of by rows and views alone."""
    found: set[fx.Node] = set()
    waiting = [each for node in graph.find_nodes(op="call_function", target=OPERATOR)
               for each in (node.args[0], node.args[_ADD])]  # fmt: skip
    while waiting:
        node = waiting.pop()
        if isinstance(node, fx.Node) and node not in found and node.target in (*_ROWS, *_VIEWS):
            found.add(node)
            waiting += node.all_input_nodes
    return found


class _Sweep:
    """Values that are known where they lie.

    Args:
        towards: nodes at which such a value may begin.
    """

    def __init__(self, towards: set[fx.Node]) -> None:
        self.attentions = 0
        self._towards = towards
        self._held: dict[fx.Node, tuple[fx.Node, Lying]] = {}

    def take(self, node: fx.Node) -> None:
        """Look at a node, after all before it."""
        if node.target in _VIEWS:
            self._view(node)
        elif node.target is OPERATOR:
            self._attention(node)
        elif node.target in _ROWS:
            self._rows(node)

    def settle(self) -> None:
        """Put into groups what is read so elsewhere."""
        for node, (lain, lying) in self._held.items():
            if node.target not in _VIEWS:
                with node.graph.inserting_before(node):
                    turned = emit(node.graph, aten.permute.default, lain, lying.order)
                    shape = [*value_of(node).shape]
                    replace(node, emit(node.graph, aten.reshape.default, turned, shape))

    def _view(self, node: fx.Node) -> None:
        source, shape = node_of(node.args[0]), value_of(node).shape
        if source in self._held:
            lain, lying = self._held[source]
        elif node in self._towards and value_of(source).is_contiguous():
            lain, lying = source, Lying.of(value_of(source).shape)
        else:
            return
        if shape[-1] != value_of(source).shape[-1]:
            return
        moved = node.target is aten.permute.default
        found = lying.permuted(listed(node.args[1])) if moved else lying.reshaped(shape)
        if found is None:
            return
        if not found.plain:
            self._held[node] = (lain, found)
        elif source in self._held:
            with node.graph.inserting_before(node):
                replace(node, emit(node.graph, aten.reshape.default, lain, [*shape]))

    def _rows(self, node: fx.Node) -> None:
        target: Any = node.target
        operands = [node_of(each) for each in node.args if isinstance(each, fx.Node)]
        added = [each for each in node.args[8:] if isinstance(each, fx.Node)]  # of a feed-forward
        rows = operands if target in _SUMS else [*operands[:1], *(added if target is GATED else ())]
        known = [each for each in node.all_input_nodes if each in self._held]
        if not known or not {*known}.issubset(rows) or not _alone(node):
            return
        lying = self._held[known[0]][1]
        if any(self._held[each][1] != lying for each in known):
            return
        if any(not lying.takes(value_of(each).shape) for each in (*rows, node)):
            return
        with node.graph.inserting_before(node):
            changed = {each: self._where_it_lies(each, lying) for each in rows}
            args: list[Any] = [changed.get(each, each) if isinstance(each, fx.Node) else each
                               for each in node.args]  # fmt: skip
            if node.target is aten.slice.Tensor:
                args[1] = -1
            found = emit(node.graph, target, *args, **node.kwargs)
        self._held[node] = (found, lying)

    def _attention(self, node: fx.Node) -> None:
        x, add = node.args[0], node.args[_ADD]
        found = self._held.get(node_of(x))
        if found is None or (
            add is not None and self._held.get(node_of(add), found)[1] != found[1]
        ):
            return
        lying, groups = found[1], found[1].groups
        if groups is None or (add is not None and node_of(add) not in self._held):
            return
        graph = node.graph
        with graph.inserting_before(node):
            seen: list[Any] = [None if each is None else self._seen(node_of(each), lying, groups)
                               for each in (x, add)]  # fmt: skip
            args = [seen[0], *node.args[1:_ADD], seen[1]]
            attended = emit(graph, OPERATOR, *args)
            digits = [lying.sizes[at] for at in groups.order[:-1]]
            apart = emit(graph, aten.reshape.default, attended, [*digits, _width(attended)])
            back = [groups.order.index(at) for at in range(len(groups.order))]
            self._held[node] = (emit(graph, aten.permute.default, apart, back), lying)
        self.attentions += 1

    def _seen(self, node: fx.Node, lying: Lying, groups: Groups) -> fx.Node:
        """A value as groups of tokens, uncopied."""
        graph, lain = node.graph, self._where_it_lies(node, lying)
        turned = emit(graph, aten.permute.default, lain, [*groups.order])
        return emit(graph, aten.reshape.default, turned, [*groups.shape, _width(lain)])

    def _where_it_lies(self, node: fx.Node, lying: Lying) -> fx.Node:
        """A value with an axis for each digit, in the order in which rows lie."""
        graph = node.graph
        if node in self._held:
            return _shaped(self._held[node][0], [*lying.sizes, _width(node)])
        shape = value_of(node).shape
        if len(shape) < 2:
            return node
        return emit(graph, aten.permute.default, _shaped(node, lying.apart(shape)), lying.back)


def _shaped(node: fx.Node, shape: list[int]) -> fx.Node:
    if [*value_of(node).shape] == shape:
        return node
    return emit(node.graph, aten.reshape.default, node, shape)


def _alone(node: fx.Node) -> bool:
    """Whether a call treats every row alone."""
    if node.target is aten.layer_norm.default:
        return len(listed(node.args[1])) == 1
    if node.target is aten.slice.Tensor:
        return given(node, 1, (0,))[0] in (-1, value_of(node).dim() - 1)
    return True


def _width(node: fx.Node) -> int:
    return value_of(node).shape[-1]
