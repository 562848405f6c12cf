"""What tells one variant of a denoiser from another."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

from .action import Action


@dataclass(frozen=True)
class VariantKey:
    """The distinct graph for one row of a plan.

    Args:
        actions: (region, action), sorted by region, `compute` left out. `reuse` of any order
            or mix is one graph: what is mixed is the slot, before the engine is called.
        writes: sorted names of the slots that this variant writes: a region's own, or that of its
            relevance.
        exact: whether the exact passes are on.
        relevance: sorted names of the slots that say which tokens its pruned regions keep.
    """

    actions: tuple[tuple[str, Action], ...]
    writes: tuple[str, ...]
    exact: bool
    relevance: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(action.order or action.mix for _, action in self.actions):
            actions = tuple((name, action.built) for name, action in self.actions)
            object.__setattr__(self, "actions", actions)

    @property
    def reads(self) -> tuple[str, ...]:
        """Sorted names of the slots that this variant reads."""
        own = tuple(region for region, action in self.actions if action.reads)
        return tuple(sorted((*own, *self.relevance))) if self.relevance else own

    @property
    def name(self) -> str:
        """Short and the same on every machine; different for the variants of one plan.

        "compute", "core.reuse", "16chain.reuse+core.w"; where regions are counted instead of
        named, a digest of the names follows: "compute+17w.3f2a".
        """
        parts: list[str] = []
        by_action: dict[str, list[str]] = {}
        for region, action in self.actions:
            by_action.setdefault(str(action), []).append(region)
        for action, regions in sorted(by_action.items()):
            parts.append(f"{_count(regions)}.{action}")
        named = [*by_action.values()]
        if self.writes:
            parts.append(f"{self.writes[0]}.w" if len(self.writes) == 1 else f"{len(self.writes)}w")
            named.append([*self.writes])
        if not self.actions:
            parts.insert(0, "compute")
        text = "+".join(parts)
        if any(len(regions) > 1 for regions in named):
            said = [(region, str(action)) for region, action in self.actions]
            text += "." + hashlib.sha256(repr((said, self.writes)).encode()).hexdigest()[:4]
        return text


def _count(regions: list[str]) -> str:
    if len(regions) == 1:
        return regions[0]
    kinds = Counter(region.rsplit(".", 1)[-1] for region in regions)
    return "+".join(f"{count}{kind}" for kind, count in sorted(kinds.items()))
