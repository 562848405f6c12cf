"""trace: which calls of a region work on tokens, and on how many of them they must."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import fx

from .layout import Axis, Layout, TokensMixedError
from .rules import Carried, carried


@dataclass(frozen=True)
class Trace:
    """The tokens' way through a region.

    Args:
        layouts: of the entry and of every call that it reaches.
        calls: what each call does, in the order of the graph, the region's value last.
        kept: the calls that are needed for kept tokens.
        whole: those that are needed for all tokens: keys and values, and what leads to them.
    """

    layouts: Mapping[fx.Node, Layout]
    calls: Mapping[fx.Node, Carried]
    kept: frozenset[fx.Node]
    whole: frozenset[fx.Node]


def trace(entry: fx.Node, value: fx.Node, layout: Layout) -> Trace:
    """Follow the tokens from a region's entry to its value.

    Args:
        entry: through which they come in.
        value: the residual, or the exit.
        layout: of the entry.

    Raises:
        TokensMixedError: a call mixes tokens, or the value's lie otherwise than the entry's.
    """
    inside = _between(entry, value)
    layouts: dict[fx.Node, Layout] = {entry: layout}
    calls: dict[fx.Node, Carried] = {}
    for node in entry.graph.nodes:
        if node not in inside or layouts.keys().isdisjoint(node.all_input_nodes):
            continue
        try:
            calls[node] = carried(node, layouts.get)
        except TokensMixedError as error:
            raise TokensMixedError(f"%{node.name} is {node.target}: {error}") from error
        layouts[node] = calls[node].layout
    if value not in calls:
        raise TokensMixedError(f"%{value.name} does not depend on %{entry.name}")
    if known(layouts[value]) != known(layout):
        raise TokensMixedError("what leaves it lies in another order than what comes in")
    kept, whole = _needed(value, calls)
    return Trace(layouts, calls, kept, whole)


def known(layout: Layout) -> tuple[Axis, ...]:
    """What is known of a layout: tokens and images, not what else there is."""
    return tuple(tuple(atom for atom in axis if atom.root) for axis in layout)


def _between(entry: fx.Node, value: fx.Node) -> set[fx.Node]:
    found = {value}
    waiting = [value]
    while waiting:
        for operand in waiting.pop().all_input_nodes:
            if operand is not entry and operand not in found and operand.op == "call_function":
                found.add(operand)
                waiting.append(operand)
    return found


def _needed(
    value: fx.Node, calls: Mapping[fx.Node, Carried]
) -> tuple[frozenset[fx.Node], frozenset[fx.Node]]:
    kept, whole = {value}, set[fx.Node]()
    for node in reversed(list(calls)):
        for index, argument in enumerate([*node.args, *node.kwargs.values()]):
            for operand in _nodes(argument):
                if operand not in calls:
                    continue
                if node in whole or (node in kept and index in calls[node].whole):
                    whole.add(operand)
                if node in kept and index not in calls[node].whole:
                    kept.add(operand)
    return frozenset(kept), frozenset(whole)


def _nodes(argument: Any) -> list[fx.Node]:
    if isinstance(argument, fx.Node):
        return [argument]
    if isinstance(argument, (list, tuple)):
        parts: Sequence[Any] = cast("Sequence[Any]", argument)
        return [node for part in parts for node in _nodes(part)]
    return []
