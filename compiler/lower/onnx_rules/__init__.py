"""How each canonical operator is written in ONNX: one file for each family, `RULES` all of them.

Shapes are fixed, so every shape is a constant, and what has no tensor argument is one too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import fx

from . import (
    activations,
    arithmetic,
    attention,
    normalisations,
    products,
    reductions,
    resizing,
    selections,
    shapes,
)
from .blame import EAGER, place_of, remedy_of
from .constants import constant
from .writing import HALVES, Reason, Rule, Writer, args_of, shape_of

__all__ = [
    "HALVES", "RULES", "Rule", "Writer", "args_of", "constant", "place_of", "refusal", "refusals",
    "remedy_of", "shape_of",
]  # fmt: skip

_FAMILIES = (
    activations, arithmetic, attention, normalisations, products, reductions, resizing, selections,
    shapes,
)  # fmt: skip

RULES: dict[Any, Rule] = {
    target: rule for family in _FAMILIES for target, rule in family.RULES.items()
}
"""The operators that can be written."""

REASONS: dict[Any, Reason] = {
    target: reason for family in _FAMILIES for target, reason in family.REASONS.items()
}
"""Of some of them: why a call cannot be written as it is."""


def refusal(node: fx.Node) -> str | None:
    """Why a call cannot be written; None where it can."""
    if node.target in RULES:
        why = REASONS.get(node.target)
        return why(node) if why is not None else None
    return f"{node.target} has no ONNX form here" if node.all_input_nodes else None


def refusals(nodes: Iterable[fx.Node], otherwise: str = EAGER) -> tuple[str, ...]:
    """Why some calls cannot be written: each reason once, where it first holds and the remedy.

    Args:
        nodes: the calls.
        otherwise: what to do about one that no pass removes.
    """
    found: dict[str, list[fx.Node]] = {}
    for node in nodes:
        if (fact := refusal(node)) is not None:
            found.setdefault(fact, []).append(node)
    return tuple(f"{fact} ({_blamed(calls, otherwise)})" for fact, calls in found.items())


def _blamed(calls: Sequence[fx.Node], otherwise: str) -> str:
    first = place_of(calls[0])
    where = first if len(calls) == 1 else f"{len(calls)} calls, the first {first}"
    return f"{where}; {remedy_of(calls[0], otherwise)}"
