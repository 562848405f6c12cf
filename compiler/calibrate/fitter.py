"""fitter: gives plans their weights, each plan once, as a state file keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from turbo4d.compiler.calibrate.beginnings import Beginnings
from turbo4d.compiler.calibrate.fidelity import CEILING_DB
from turbo4d.compiler.calibrate.fit import fitted_runs, with_fits
from turbo4d.runtime.action import Action
from turbo4d.runtime.fitted import STEP

if TYPE_CHECKING:
    from turbo4d.compiler.calibrate.harness import Harness
    from turbo4d.compiler.calibrate.replay import Recording
    from turbo4d.compiler.calibrate.state import State
    from turbo4d.runtime.plan import Plan


class Fitter:
    """Fits plans on the examples of a calibration.

    Args:
        harness: that has learned the network.
        examples: to fit on.
        state: where weights are kept.
    """

    def __init__(self, harness: Harness, examples: Sequence[object], state: State) -> None:
        self._harness = harness
        self._examples = examples
        self._state = state
        self._recordings: list[Recording] = []
        self._beginnings = Beginnings()
        self._decibels: dict[str, tuple[float, ...]] = {}

    def fit(self, name: str, plan: Plan) -> Plan:
        """The plan with weights, where it reuses the whole step.

        Args:
            name: the same for plans whose steps do the same.
            plan: to be fitted.
        """
        if not any(STEP in (row or {}) for rows in plan.streams.values() for row in rows):
            return plan
        found = self._state.once(f"fit {name}", lambda: self._fitted(name, plan))
        fits = {(stream, int(step)): Action.parse(text) for stream, step, text in found}
        return replace(with_fits(plan, fits), weights_sha256=self._harness.weights_sha256)

    def decibels(self, name: str, example: object) -> float | None:
        """What a plan measured on an example while it was fitted; None where it was not just now.

        Args:
            name: of the plan.
            example: any.
        """
        known = self._decibels.get(name)
        at = next((at for at, own in enumerate(self._examples) if own is example), None)
        return None if known is None or at is None else known[at]

    def score(self, name: str, plan: Plan) -> float:
        """What a plan measures on the first example, fitted to that one alone, in dB.

        Args:
            name: the same for plans whose steps do the same.
            plan: to be fitted and run.
        """
        return self._state.once(f"score {name}", lambda: self._score(plan))

    def _score(self, plan: Plan) -> float:
        first = self._examples[0]
        _, [sample] = fitted_runs(
            self._harness, [first], plan, self._recorded()[:1], self._beginnings
        )
        return min(CEILING_DB, self._harness.judge(first, sample))

    def _recorded(self) -> list[Recording]:
        if not self._recordings:
            self._recordings = [
                self._harness.record(example, (), lambda at, values: None)
                for example in self._examples
            ]
        return self._recordings

    def _fitted(self, name: str, plan: Plan) -> list[tuple[str, int, str]]:
        made, samples = fitted_runs(self._harness, self._examples, plan, self._recorded())
        if not plan.storage:  # a run that fits keeps no other slot than the step's in its storage
            self._decibels[name] = tuple(
                min(CEILING_DB, self._harness.judge(example, sample))
                for example, sample in zip(self._examples, samples, strict=True)
            )
        return [
            (stream, step, str(row[STEP]))
            for stream, rows in made.streams.items()
            for step, row in enumerate(rows)
            if row is not None and STEP in row
        ]
