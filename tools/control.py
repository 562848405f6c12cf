"""The control: the uncached network with as many steps as fit the turbo latency, by two solvers."""

from __future__ import annotations

from functools import partial

from turbo4d.tools.asset import Asset
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.rounds import Jobs, Rounds
from turbo4d.tools.sampling import SOLVERS, sample_plain

# The clock's noise alone must not cost the control a step; what it gains by this is its favour.
_SLACK = 1.02
NAMES = {"euler": "Euler", "dpmpp_2m": "DPM-Solver++(2M)"}


def fitting_steps(turbo_s: float, baseline_s: float, steps: int) -> int:
    """Most steps of the uncached network whose share of its latency fits the turbo latency."""
    return min(steps, max(1, int(turbo_s / baseline_s * steps + 1e-9)))


def control_jobs(model: LoadedModel, count: int, asset: Asset) -> Jobs:
    """Both solvers on one scene, named as in SOLVERS."""
    return {solver: partial(sample_plain, model, asset, count, solver) for solver in SOLVERS}


def settle(rounds: Rounds, model: LoadedModel, count: int, steps: int) -> int:
    """Time the controls again until they have as many steps as fit, by the medians of all rounds.

    Args:
        rounds: in which baseline, turbo and the controls of `count` steps ran in turn.
        model: the network.
        count: what was guessed from one run of each side.
        steps: of the baseline.

    Returns:
        The number of steps, whose controls `rounds` now holds.
    """
    turbo_s = rounds.seconds("turbo")
    fitting = fitting_steps(turbo_s, rounds.seconds("baseline"), steps)
    if fitting > count:
        count = fitting
        rounds.run(partial(control_jobs, model, count))
    while count > 1 and min(map(rounds.seconds, SOLVERS)) > turbo_s * _SLACK:
        count -= 1
        rounds.run(partial(control_jobs, model, count))
    return count
