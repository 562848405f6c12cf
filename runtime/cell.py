"""What one step of one stream needs: its engine, and the slots that are kept, mixed and fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .action import Action
from .engine import Engine
from .variant_key import VariantKey


@dataclass(frozen=True)
class Cell:
    """What one step of one stream needs, found when the plan is resolved.

    Args:
        name: of the variant.
        engine: of the variant.
        live: the regions whose slots a later step still reads, and how many of the newest values;
            what else the step writes is not kept.
        orders: the regions whose slots are extrapolated, and by which order.
        fits: the regions whose slots are mixed by the plan's own weights.
    """

    name: str
    engine: Engine
    live: Mapping[str, int]
    orders: Mapping[str, int] = field(default_factory=dict[str, int])
    fits: Mapping[str, Action] = field(default_factory=dict[str, Action])

    @cached_property
    def needed(self) -> Mapping[str, int]:
        """Per region the newest values that must be there before the step writes."""
        return needed_values(self.engine.key, self.orders, self.live)


def needed_values(
    key: VariantKey, orders: Mapping[str, int], live: Mapping[str, int]
) -> Mapping[str, int]:
    """Per slot the newest values that a step reads, or that a later one does besides its own.

    Args:
        key: of the step's graph.
        orders: the regions that it extrapolates, and by which order.
        live: the slots that a later step still reads, and how many of the newest values.
    """
    read = {name: orders.get(name, 0) + 1 for name in key.reads}
    own = {name: 1 for name in key.writes}
    return {
        name: max(read.get(name, 0), live.get(name, 0) - own.get(name, 0))
        for name in {*read, *live}
    }
