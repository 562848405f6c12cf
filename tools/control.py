"""The control: the uncached network with as many steps as fit the turbo latency, by two solvers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from turbo4d.tools.asset import Asset
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.sampling import SOLVERS, sample_plain
from turbo4d.tools.timing import Timed, alternate

# The clock's noise alone must not cost the control a step; what it gains by this is its favour.
_SLACK = 1.02
NAMES = {"euler": "Euler", "dpmpp_2m": "DPM-Solver++(2M)"}


def fitting_steps(turbo_s: float, baseline_s: float, steps: int) -> int:
    """Most steps of the uncached network whose share of its latency fits the turbo latency."""
    return min(steps, max(1, int(turbo_s / baseline_s * steps + 1e-9)))


def time_controls(
    model: LoadedModel,
    assets: Sequence[Asset],
    turbo_s: float,
    baseline_s: float,
    steps: int,
    runs: int,
    device: torch.device,
    say: Callable[[str], None],
) -> tuple[int, list[dict[str, Timed]]]:
    """Sample and time both solvers, with fewer steps until the faster one really fits.

    Args:
        model: the network.
        assets: one per scene.
        turbo_s: latency to fit, the median over the scenes.
        baseline_s: latency of `steps` steps, the median over the scenes.
        steps: of the baseline.
        runs: timed runs of each.
        device: of the network.
        say: told what is going on.

    Returns:
        The number of steps, and for each scene the timed sample of each solver.
    """
    count = fitting_steps(turbo_s, baseline_s, steps)
    while True:
        found = [
            alternate(_jobs(model, asset, count), runs, device, _labelled(say, asset, count))
            for asset in assets
        ]
        fastest = min(
            statistics.median(row[solver].timing.median for row in found) for solver in SOLVERS
        )
        if fastest <= turbo_s * _SLACK or count == 1:
            return count, found
        count -= 1


def _jobs(model: LoadedModel, asset: Asset, count: int) -> dict[str, Callable[[], torch.Tensor]]:
    return {solver: partial(sample_plain, model, asset, count, solver) for solver in SOLVERS}


def _labelled(say: Callable[[str], None], asset: Asset, count: int) -> Callable[[str], None]:
    return lambda text: say(f"{asset.scene.name}, control of {count} steps, {text}")
