"""Noise levels: their units, their order, and what they are in sigma."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor

from .errors import PlanError

# sigma: standard deviation of the noise on data of variance 1 or so. c_noise: ln(sigma) / 4, what
# EDM-style models are fed. timestep: an index into a training schedule of 1000 steps.
LevelUnit = Literal["sigma", "c_noise", "timestep"]
UNITS: tuple[LevelUnit, ...] = get_args(LevelUnit)
# The schedule that Stable Diffusion was trained with, and most models fed a timestep after it.
_BETA_FIRST, _BETA_LAST, _TRAIN_STEPS = 0.00085, 0.012, 1000


def check_levels(levels: Sequence[float], unit: LevelUnit) -> None:
    """Proves that the levels are those of a denoising run.

    Args:
        levels: one per step, in `unit`.
        unit: of the levels.

    Raises:
        PlanError: where there is none, one is impossible in the unit, or they do not fall.
    """
    if unit not in UNITS:
        raise PlanError(f"levels: unit {unit!r} is unknown; there are {', '.join(sorted(UNITS))}.")
    if not levels:
        raise PlanError("levels: there are none; wanted the noise level of each step.")
    lowest = {"sigma": 0.0, "c_noise": -math.inf, "timestep": 0.0}[unit]
    highest = float(_TRAIN_STEPS) if unit == "timestep" else math.inf
    for step, level in enumerate(levels):
        possible = lowest < level < highest or (unit == "timestep" and level in (lowest, highest))
        if not possible:
            raise PlanError(
                f"levels: step {step} has {level:g}, which is no {unit} that a model is fed."
            )
        if step and level >= levels[step - 1]:
            raise PlanError(
                f"levels: step {step} has {level:g} after {levels[step - 1]:g}; "
                "noise levels must fall from step to step."
            )


def without_end(
    levels: Sequence[float] | Tensor, steps: int | None, unit: LevelUnit | None = None
) -> tuple[float, ...]:
    """The levels that a model is fed: schedules of sigmas end with a zero that no step sees.

    A zero among timesteps is a level like any other: DDIM's schedules feed it at their last step.

    Args:
        levels: of a schedule, with or without its closing zero.
        steps: how many steps there are, None to tell from the zero.
        unit: of the levels, None to infer it.
    """
    fed = tuple(float(level) for level in levels)
    if len(fed) < 2 or fed[-1] != 0.0:
        return fed
    if steps is None:
        ends = (unit or infer_unit(fed)) == "sigma"
    else:
        ends = steps == len(fed) - 1
    return fed[:-1] if ends else fed


def infer_unit(levels: Sequence[float]) -> LevelUnit:
    """The unit that fits the values.

    Any below 0 is c_noise; whole numbers are timesteps where they begin above 800, or fall to 0 by
    equal strides from above 100, as few steps of DDIM do.
    """
    if any(level < 0 for level in levels):
        return "c_noise"
    highest = max(levels, default=0.0)
    whole = all(float(level).is_integer() for level in levels)
    strides = {before - after for before, after in pairwise(levels)}
    to_zero = len(levels) > 2 and len(strides) == 1 and levels[-1] == 0
    if whole and (highest > 800 or (highest > 100 and to_zero)):
        return "timestep"
    return "sigma"


def to_sigma(level: float, unit: LevelUnit) -> float:
    """A noise level as sigma, the ratio of noise to signal.

    Timesteps are taken as those of Stable Diffusion's schedule (1000 steps, square roots of beta
    evenly spaced): right in order for every model, in value for those trained with it.
    """
    return level if unit == "sigma" else math.exp(log_sigma(level, unit))


def log_sigma(level: float, unit: LevelUnit) -> float:
    """A noise level as ln(sigma), in which features drift evenly; see `to_sigma`."""
    if unit == "sigma":
        return math.log(level)
    if unit == "c_noise":
        return 4 * level
    below = min(int(level), _TRAIN_STEPS - 1)
    above = min(below + 1, _TRAIN_STEPS - 1)
    sigmas = _ddpm_sigmas()
    low, high = math.log(sigmas[below]), math.log(sigmas[above])
    return low + (high - low) * (level - below)


@cache
def _ddpm_sigmas() -> tuple[float, ...]:
    first, last = math.sqrt(_BETA_FIRST), math.sqrt(_BETA_LAST)
    kept = 1.0
    sigmas: list[float] = []
    for step in range(_TRAIN_STEPS):
        kept *= 1 - (first + (last - first) * step / (_TRAIN_STEPS - 1)) ** 2
        sigmas.append(math.sqrt((1 - kept) / kept))
    return tuple(sigmas)
