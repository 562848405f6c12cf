"""--plan FILE: read before anything is compiled, and refused where it cannot fit the run."""

from __future__ import annotations

import math
from pathlib import Path

from turbo4d.models.config import SV4DConfig
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.levels import to_sigma
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.plan_source import read_plan
from turbo4d.tools.failures import CallError

_SAME_LEVEL = 1e-3  # one schedule, computed in two precisions


def plan_option(given: str, config: SV4DConfig, steps: int) -> str | Plan:
    """The preset's name, or the plan of a file.

    Whether the plan is for this very model shows once the model is captured.

    Args:
        given: what --plan said.
        config: of the network.
        steps: of the run.

    Raises:
        PlanError: the file holds no plan.
        CallError: the plan is for another geometry or schedule.
    """
    plan = read_plan(given)
    if isinstance(plan, Plan):
        _check_geometry(Path(given), plan, config)
        check_schedule(f"--plan {str(Path(given))!r}", plan, steps)
    return plan


def _check_geometry(path: Path, plan: Plan, config: SV4DConfig) -> None:
    side = config.latent_size
    ours = Geometry(2, config.views or 1, config.frames or 1, side, side)
    if plan.geometry != ours:
        raise CallError(
            f"--plan {str(path)!r} is for {plan.geometry}; this model has {ours}. Name a plan made "
            "for this model."
        )


def check_schedule(what: str, plan: Plan, steps: int) -> None:
    """Refuse a plan for another schedule than ours.

    Args:
        what: the plan came from, for the message.
        plan: to be carried out.
        steps: of the run.

    Raises:
        CallError: with both.
    """
    if plan.steps != steps:
        raise CallError(
            f"{what} is for {plan.steps} steps; this run has {steps}. Add --steps "
            f"{plan.steps}, or name another plan."
        )
    for step, (theirs, ours) in enumerate(
        zip(plan.levels, edm_sigmas(steps)[:-1].tolist(), strict=True)
    ):
        sigma = to_sigma(theirs, plan.level_unit)
        if not math.isclose(sigma, ours, rel_tol=_SAME_LEVEL):
            raise CallError(
                f"{what} is for sigma {sigma:.4g} at step {step}; this run has "
                f"{ours:.4g}. Name a plan made for this schedule."
            )
