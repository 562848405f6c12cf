"""verified: plans that the search found, run on scenes, each plan and scene once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from turbo4d.compiler.calibrate.fidelity import CEILING_DB
from turbo4d.compiler.calibrate.search import Found, Limits
from turbo4d.compiler.calibrate.state import State
from turbo4d.runtime.plan import Plan

if TYPE_CHECKING:
    from turbo4d.compiler.calibrate.fitter import Fitter
    from turbo4d.compiler.calibrate.harness import Harness


@dataclass(frozen=True)
class Fidelity:
    """Of one plan on some scenes.

    Args:
        names: of the scenes.
        decibels: of each.
    """

    names: tuple[str, ...]
    decibels: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the scenes."""
        return statistics.fmean(self.decibels)

    @property
    def worst(self) -> float:
        """Over the scenes."""
        return min(self.decibels)

    def reaches(self, worst_slack_db: float) -> float:
        """The highest target that mean and worst both meet, the worst with some slack."""
        return min(self.mean, self.worst + worst_slack_db)


@dataclass(frozen=True)
class Example:
    """What a sampler samples.

    Args:
        name: for reports.
        digest: the same for equal examples.
        value: what the sampler is given.
    """

    name: str
    digest: str
    value: object


class Verifier:
    """Runs plans on scenes.

    Args:
        harness: that has learned the network.
        limits: of the plans.
        state: where what was measured is kept.
        fields: of every plan that is made: its name, target and origin.
        fitter: gives plans their weights.
    """

    def __init__(
        self,
        harness: Harness,
        limits: Limits,
        state: State,
        fields: Mapping[str, Any],
        fitter: Fitter,
    ) -> None:
        self._fitter = fitter
        self.harness = harness
        self.limits = limits
        self._state = state
        self._fields = dict(fields)

    def plan(self, found: Found, **fields: Any) -> Plan:
        """The plan with its weights, which has passed its check.

        Raises:
            PlanError: it breaks a limit, which is a defect of the search.
        """
        return self._fitter.fit(found.name, self.plain(found, **fields))

    def score(self, found: Found) -> float:
        """What a plan measures on the first example, fitted to that one alone, in dB.

        Raises:
            PlanError: it breaks a limit.
        """
        return self._fitter.score(found.name, self.plain(found))

    def plain(self, found: Found, **fields: Any) -> Plan:
        """The plan without weights, which has passed its check.

        Raises:
            PlanError: it breaks a limit, which is a defect of the search.
        """
        read = {
            region
            for rows in found.rows.values()
            for row in rows
            for region, action in (row or {}).items()
            if action.reads
        }
        kept = {} if found.storage == "compute" else dict.fromkeys(read, found.storage)
        plan = self.harness.plan(
            rows=found.rows,
            max_age=self.limits.max_age,
            max_variants=self.limits.max_variants,
            max_cache_bytes=self.limits.max_cache_bytes,
            storage=kept,
            **{**self._fields, **fields},
        )
        plan.check(self.harness.regions)
        return plan

    def run(
        self, found: Found, examples: Sequence[Example], say: Callable[[int], None]
    ) -> Fidelity:
        """What a plan measures, on graphs that serve all plans where slots are kept as they are.

        Args:
            found: the plan.
            examples: to sample.
            say: told the number of each example.
        """
        sampled = partial(self._followed, found, self.plan(found))
        return self._fidelity(examples, say, f"psnr {found.name}", sampled)

    def prove(
        self, found: Found, examples: Sequence[Example], say: Callable[[int], None]
    ) -> Fidelity:
        """What a plan measures in sessions, on graphs of its own; uncached samples are let go.

        Args:
            found: the plan.
            examples: to sample.
            say: told the number of each example.
        """
        sampled = partial(self._one, self.plan(found))
        return self._fidelity(
            examples, say, f"session {found.name}", sampled, after=self.harness.forget
        )

    def _fidelity(
        self,
        examples: Sequence[Example],
        say: Callable[[int], None],
        finding: str,
        sampled: Callable[[object], float],
        after: Callable[[object], None] = lambda example: None,
    ) -> Fidelity:
        """What the state holds of each example under a finding's name, or a new sample's dB."""
        decibels: list[float] = []
        for index, example in enumerate(examples):
            say(index)
            made = partial(sampled, example.value)
            decibels.append(self._state.once(f"{finding} {example.digest}", made))
            after(example.value)
        return Fidelity(tuple(example.name for example in examples), tuple(decibels))

    def _followed(self, found: Found, plan: Plan, example: object) -> float:
        if found.storage != "compute":
            return self._one(plan, example)
        known = self._fitter.decibels(found.name, example)
        if known is not None:
            return known
        sample = self.harness.follow(example, plan)
        return min(CEILING_DB, self.harness.judge(example, sample))

    def _one(self, plan: Plan, example: object) -> float:
        return min(CEILING_DB, self.harness.psnr(example, plan))
