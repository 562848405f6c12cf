"""plan_cost: what a plan's steps really execute, counted in the graphs that would run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from turbo4d.compiler.costs import dead_weights, variant_flops
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.predicted_time import note_work
from turbo4d.compiler.specialise import specialise

if TYPE_CHECKING:
    from turbo4d.compiler.analysis import Analysis
    from turbo4d.runtime.plan_check import PlanCheck
    from turbo4d.runtime.variant_key import VariantKey


@dataclass(frozen=True)
class PlanCost:
    """The operations and the memory of a plan.

    Args:
        by_variant: operations of one step of each variant.
        by_step: operations of each step of the first stream; 0 where it does not run.
        prologue_flops: operations that a run does once for each stream.
        prologue_bytes: of the values that a run then holds for each stream.
        prologue_values: how many those are.
        dead_weights: bytes of each weight that no step reads, nor the prologue, by name.
    """

    by_variant: Mapping[VariantKey, int]
    by_step: tuple[int, ...]
    prologue_flops: int
    prologue_bytes: int
    prologue_values: int
    dead_weights: Mapping[str, int]

    @property
    def total(self) -> int:
        """Operations of all steps of the first stream, and of its prologue."""
        return sum(self.by_step) + self.prologue_flops


def plan_cost(analysis: Analysis, check: PlanCheck) -> PlanCost:
    """Make every variant of a plan, and count.

    Args:
        analysis: of the model.
        check: the plan's proof.

    Raises:
        PlanError: an action that this version cannot make.
    """
    variants = [specialise(analysis, key) for key in check.variants]
    for variant in variants:
        note_work(analysis, variant)
    by_variant = {variant.key: variant_flops(variant) for variant in variants}
    keys = next(iter(check.keys.values()))
    dead = set(dead_weights(analysis, variants))
    exact = any(key.exact for key in check.variants)
    prologue = exact_form(analysis).prologue if exact else None
    return PlanCost(
        by_variant=by_variant,
        by_step=tuple(0 if key is None else by_variant[key] for key in keys),
        prologue_flops=prologue.flops if prologue else 0,
        prologue_bytes=prologue.size_bytes if prologue else 0,
        prologue_values=len(prologue.names) if prologue else 0,
        dead_weights={
            row.target: prod(row.shape) * row.dtype.itemsize
            for row in analysis.capture.table
            if row.kind == "weight" and row.target in dead
        },
    )


def by_pattern(sizes: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """How many names end alike and what they add up to: ("attn2.to_q.weight", 48, bytes).

    Names are alike in what follows their last number; the largest sum comes first.
    """
    found: dict[str, list[int]] = {}
    for name, size in sizes.items():
        found.setdefault(re.split(r"(?:^|\.)\d+\.", name)[-1], []).append(size)
    rows = [(pattern, len(of), sum(of)) for pattern, of in found.items()]
    return sorted(rows, key=lambda row: (-row[2], row[0]))
