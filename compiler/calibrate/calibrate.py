"""calibrate: from a network, its sampler and examples to a plan of the quality that was asked for.

Learn the schedule, measure what each move adds to the final error, search the fastest plan for each
budget of a fixed grid, choose one by running them, and run that one on examples that had no part in
it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from turbo4d.compiler.calibrate.call import check_apart, check_call, named
from turbo4d.compiler.calibrate.digest import weights_digest
from turbo4d.compiler.calibrate.error_table import ErrorTable
from turbo4d.compiler.calibrate.fitter import Fitter
from turbo4d.compiler.calibrate.frontier import Place, choose, distinct
from turbo4d.compiler.calibrate.harness import Harness
from turbo4d.compiler.calibrate.measure import measure
from turbo4d.compiler.calibrate.move_seconds import move_seconds
from turbo4d.compiler.calibrate.moves import Move, groups_of, moves_of
from turbo4d.compiler.calibrate.places import places_of
from turbo4d.compiler.calibrate.plan_moves import predicted_error
from turbo4d.compiler.calibrate.refine import refined
from turbo4d.compiler.calibrate.report import Evidence, report_of
from turbo4d.compiler.calibrate.saving import saving
from turbo4d.compiler.calibrate.search import Found, Limits, Steps, found_of, solver
from turbo4d.compiler.calibrate.stages import Stages
from turbo4d.compiler.calibrate.state import State, key
from turbo4d.compiler.calibrate.timed import timed
from turbo4d.compiler.calibrate.verified import Example, Fidelity, Verifier
from turbo4d.compiler.errors import CalibrationError
from turbo4d.compiler.machine import Machine, measure_machine
from turbo4d.runtime.device_name import device_name
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.plan import Plan

SESSION_OFF_DB = 0.1  # by which sessions may differ from the runs that a plan is chosen by
_EXPECTED_PLANS = 8  # that bisection and the places before it look at; for the time left alone


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Args:
        plan: the fastest of those that measured the target.
        report: how it was found and what it measured, as JSON takes it.
        harness: that ran it.
    """

    plan: Plan
    report: Mapping[str, Any]
    harness: Harness


def calibrate(
    network: nn.Module,
    sampler: Callable[[Callable[..., Any], Any], Tensor],
    examples: Sequence[object],
    min_psnr_db: float,
    *,
    held_out: Sequence[object] = (),
    max_cache_bytes: int | None = None,
    max_variants: int = 8,
    worst_slack_db: float = 2.0,
    state: Path | None = None,
    fidelity: Callable[[Tensor, Tensor, Any], float] | None = None,
    machine: Machine | None = None,
    progress: Callable[[str], None] | None = None,
    options: Mapping[str, Any] | None = None,
    use: Collection[str] | None = None,
    names: Sequence[str] = (),
    held_out_names: Sequence[str] = (),
    command: str = "turbo4d.calibrate",
) -> Calibration:
    """A plan under which samples stay as close to the uncached ones as was asked.

    Args:
        network: the denoiser, in eval mode.
        sampler: called as `sampler(denoiser, example)`, gives the sample; see `Harness`.
        examples: to measure and to choose by.
        min_psnr_db: what the mean over the examples must reach.
        held_out: examples that the plan is then run on; they have no part in finding it.
        max_cache_bytes: what all slots together may hold at any time, None for no bound.
        max_variants: how many graphs the plan may need.
        worst_slack_db: how far below the target the worst example may lie.
        state: a file that keeps what was found so far, so that a stopped calibration goes on.
        fidelity: gives dB of (reference, sample, example); None for PSNR.
        machine: for whose time the plan is made; None for this one, measured.
        progress: told a line, with percent and time left, at each change.
        options: of the backend, such as `geometry`.
        use: names of the moves to search among, None for all that save time.
        names: of the examples, for the report; their numbers where there are none.
        held_out_names: of the held-out examples.
        command: what the plan's origin names.

    Raises:
        CalibrationError: a target that no plan reaches, a sampler that is not deterministic,
            examples of several geometries, a state of another calibration, no OR-tools.
    """
    check_call(examples, min_psnr_db, max_cache_bytes, max_variants, worst_slack_db)
    solver()  # before anything takes time
    task = _Task(
        harness=Harness(network, sampler, fidelity=fidelity, options=options),
        network=network,
        examples=named(examples, names),
        held_out=named(held_out, held_out_names),
        target_db=min_psnr_db,
        worst_slack_db=worst_slack_db,
        stages=Stages(progress),
        use=use,
        command=command,
    )
    check_apart(task.examples, task.held_out)
    return task.run(state, max_cache_bytes, max_variants, machine)


@dataclass
class _Task:
    """One calibration under way."""

    harness: Harness
    network: nn.Module
    examples: Sequence[Example]
    held_out: Sequence[Example]
    target_db: float
    worst_slack_db: float
    stages: Stages
    use: Collection[str] | None
    command: str

    def run(
        self,
        path: Path | None,
        max_cache_bytes: int | None,
        max_variants: int,
        machine: Machine | None,
    ) -> Calibration:
        harness, at = self.harness, self.stages.at
        at("learn", 0.0, "one uncached run")
        harness.learn(self.examples[0].value)
        state = State(path, self._identity())
        at("learn", 0.5, "predicting the time of each move")
        machine = machine or self._machine(state)
        groups = groups_of(harness.regions)
        moves = moves_of(harness.regions, groups, use=self.use)
        seconds = move_seconds(harness.analysis, moves, machine)
        if self.use is None:
            moves = saving(moves, groups, seconds)
        table = self._measured(state, moves)
        limits = Limits(max_cache_bytes, max_variants, max_age=len(harness.levels))
        places = places_of(
            table,
            seconds,
            limits,
            harness.regions,
            state,
            partial(at, "search"),
        )
        verifier = Verifier(
            harness,
            limits,
            state,
            {"name": f"psnr{self.target_db:g}", "error_budget_db": self.target_db},
            Fitter(harness, [example.value for example in self.examples], state),
        )
        known: dict[str, Fidelity] = {}
        better = partial(self._better, table, seconds, verifier)
        chosen, places = self._chosen(places, verifier, known, better)
        known[chosen.found.name] = self._proved(chosen, verifier, known[chosen.found.name])
        apart = self._run_apart(chosen, verifier)
        plan = verifier.plan(chosen.found, origin=self._origin(known[chosen.found.name], apart))
        times = timed(harness, plan, self.examples[0].value, partial(at, "held_out"))
        self.stages.end()
        found = Evidence(
            harness=harness,
            table=table,
            machine=machine,
            places=places,
            chosen=chosen,
            plan=plan,
            known=known,
            held_out=apart,
            timed=times,
            seconds_spent=self.stages.seconds,
            device=_device(self.network),
            facts={
                "command": self.command,
                "target_db": self.target_db,
                "worst_slack_db": self.worst_slack_db,
            },
        )
        return Calibration(plan, report_of(found), harness)

    def _identity(self) -> dict[str, str]:
        harness = self.harness
        return {
            "model": harness.model,
            "weights": weights_digest(self.network),
            "geometry": str(harness.geometry),
            "levels": key(harness.levels, harness.level_unit),
            "examples": key([example.digest for example in self.examples]),
        }

    def _measured(self, state: State, moves: Sequence[Move]) -> ErrorTable:
        table = measure(
            self.harness,
            [(example.name, example.value) for example in self.examples],
            state,
            use=[move.name for move in moves],
            progress=partial(self.stages.at, "measure"),
        )
        return replace(table, moves=tuple(moves))

    def _machine(self, state: State) -> Machine:
        weight = next(self.network.parameters(), torch.empty(0))
        name = f"machine {device_name(weight.device)} {weight.dtype} {torch.get_num_threads()}"
        found = state.once(name, lambda: measure_machine(weight.dtype, weight.device).as_json())
        return Machine(**found)

    def _better(
        self, table: ErrorTable, seconds: Mapping[str, float], verifier: Verifier, found: Found
    ) -> Found:
        """A plan with its computed steps moved to where they measure best."""

        def made(steps: Steps) -> Found:
            rough = found_of(table, seconds, steps, 0.0, proven=found.proven, storage=found.storage)
            try:
                return replace(rough, error=predicted_error(table, verifier.plain(rough), regions))
            except PlanError:
                return rough  # which its score refuses as well

        regions = self.harness.regions
        fitted = {move.name: move.orders for move in table.moves if move.fitted}
        return refined(found, fitted, made, verifier.score)

    def _chosen(
        self,
        places: Sequence[Place],
        verifier: Verifier,
        known: dict[str, Fidelity],
        better: Callable[[Found], Found],
    ) -> tuple[Place, tuple[Place, ...]]:
        """The fastest of the places around the bisected one whose plan measures the target.

        Returns:
            The place, and all of them, those that were looked at with the plans that were run.
        """
        moved: dict[str, Found] = {}

        def measured(at: int) -> float:
            first = places[at].found
            if first.name not in moved:
                self.stages.at(
                    "verify",
                    len(known) / _EXPECTED_PLANS,
                    f"moving the steps of the plan for {places[at].budget_db:g} dB",
                )
                moved[first.name] = better(first)
            found = moved[first.name]
            if found.name not in known:
                known[found.name] = verifier.run(
                    found,
                    self.examples,
                    lambda index: self.stages.at(
                        "verify",
                        (len(known) + index / len(self.examples)) / _EXPECTED_PLANS,
                        f"running the plan for {places[at].budget_db:g} dB",
                    ),
                )
            return known[found.name].reaches(self.worst_slack_db)

        at = distinct(places)
        chosen = choose(len(at), lambda number: measured(at[number]), self.target_db)
        if chosen is None:
            best = max(known.values(), key=lambda each: each.reaches(self.worst_slack_db))
            raise CalibrationError(
                f"calibrate: no plan reaches {self.target_db:g} dB on these examples; the best "
                f"that was run has {best.mean:.2f} dB in the mean and {best.worst:.2f} dB at "
                f"worst. Ask for at most {best.reaches(self.worst_slack_db):.1f} dB."
            )
        run = [replace(p, found=moved.get(p.found.name, p.found)) for p in places]
        return run[at[chosen]], tuple(run)

    def _proved(self, chosen: Place, verifier: Verifier, before: Fidelity) -> Fidelity:
        """What sessions measure of the plan that was chosen by runs without them."""
        proved = verifier.prove(
            chosen.found,
            self.examples,
            lambda index: self.stages.at(
                "verify", 1.0, f"the plan in a session, example {index + 1} of {len(self.examples)}"
            ),
        )
        if abs(proved.mean - before.mean) > SESSION_OFF_DB:
            raise CalibrationError(
                f"calibrate: the plan measures {proved.mean:.2f} dB in sessions and "
                f"{before.mean:.2f} dB while it was sought; that is a defect, please report it."
            )
        return proved

    def _run_apart(self, chosen: Place, verifier: Verifier) -> Fidelity | None:
        if not self.held_out:
            return None
        return verifier.prove(
            chosen.found,
            self.held_out,
            lambda index: self.stages.at(
                "held_out",
                index / len(self.held_out),
                f"held-out example {index + 1} of {len(self.held_out)}",
            ),
        )

    def _origin(self, known: Fidelity, apart: Fidelity | None) -> str:
        shown, what = (known, "calibration") if apart is None else (apart, "held-out")
        return (
            f"calibrated: {self.command}; {shown.mean:.1f} dB mean, {shown.worst:.1f} dB worst on "
            f"{len(shown.decibels)} {what} scenes"
        )


def _device(network: nn.Module) -> torch.device:
    return next((each.device for each in network.parameters()), torch.device("cpu"))
