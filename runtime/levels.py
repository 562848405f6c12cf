"""Noise levels: their units, their order, and what they are in sigma."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Literal, get_args

from torch import Tensor

from .errors import PlanError

# sigma: standard deviation of the noise on data of variance 1 or so. log_sigma: its logarithm.
# c_noise: a quarter of that, what EDM-style models are fed. timestep: an index into a training
# schedule of 1000 steps. flow: the share of noise in what a flow model is fed, sigma / (1 + sigma).
# flow_timestep: a thousand times that.
LevelUnit = Literal["sigma", "log_sigma", "c_noise", "timestep", "flow", "flow_timestep"]
UNITS: tuple[LevelUnit, ...] = get_args(LevelUnit)
# The schedule that Stable Diffusion was trained with, and most models fed a timestep after it.
_BETA_FIRST, _BETA_LAST, _TRAIN_STEPS = 0.00085, 0.012, 1000
# Where `infer_unit` draws its lines; see tests/foreign/test_schedulers.py.
_FEW_TIMESTEPS, _ONE_TIMESTEP, _LAST_TIMESTEP = 100, 800, 999
# Levels at the end of their range that a model may be fed.
_ENDS: dict[LevelUnit, tuple[float, ...]] = {
    "timestep": (0.0, 1000.0),
    "flow": (1.0,),
    "flow_timestep": (1000.0,),
}
_MOST_C_NOISE = 2.0  # sigmas from 0.0003 to 3000
_MOST_NOISE = 0.9999  # noise alone is a sigma without bound


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
    lowest = -math.inf if unit in ("c_noise", "log_sigma") else 0.0
    highest = _ENDS[unit][-1] if unit in _ENDS else math.inf
    for step, level in enumerate(levels):
        possible = lowest < level < highest or level in _ENDS.get(unit, ())
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

    Raises:
        PlanError: they are no list of numbers.
    """
    fed = _numbers(levels)
    if len(fed) < 2 or fed[-1] != 0.0:
        return fed
    if steps is None:
        ends = (unit or infer_unit(fed)) in ("sigma", "flow", "flow_timestep")
    else:
        ends = steps == len(fed) - 1
    return fed[:-1] if ends else fed


def _numbers(levels: object) -> tuple[float, ...]:
    given: Any = levels
    try:
        if isinstance(given, str):
            raise TypeError("a text")
        return tuple(float(level) for level in given)
    except (TypeError, ValueError) as error:
        said = tuple(given.shape) if isinstance(given, Tensor) else repr(given)
        raise PlanError(
            f"levels: got {said!s:.60}; wanted a list, or a tensor of one axis, of numbers."
        ) from error


def infer_unit(levels: Sequence[float]) -> LevelUnit:
    """The unit that fits the values.

    Any below 0 is c_noise, or log_sigma where that would span more than sigmas do. Sigmas halve
    from step to step, so the middle one is next to nothing of the first. Timesteps from up to 1000
    do not, nor do flow levels from up to 1. What begins above 999, or stays high for longer than it
    falls, is of a flow: its schedules are shifted.
    """
    if any(level < 0 for level in levels):
        return "log_sigma" if max(map(abs, levels)) > _MOST_C_NOISE else "c_noise"
    highest = max(levels, default=0.0)
    middle = levels[len(levels) // 2] / highest if len(levels) > 1 and highest else 0.0
    if highest <= 1:
        return "flow" if middle > 0.25 else "sigma"
    if not _FEW_TIMESTEPS < highest <= _TRAIN_STEPS:
        return "sigma"
    if middle > 0.04:
        strides = [before - after for before, after in pairwise(levels)]
        longer = middle > 0.55 and strides[0] < 0.75 * sum(strides) / len(strides)
        shifted = longer and levels[-1] > 0
        return "flow_timestep" if shifted or highest > _LAST_TIMESTEP else "timestep"
    whole = all(float(level).is_integer() for level in levels)
    few = len(levels) > 1 and levels[-1] > 0
    return "timestep" if whole and (few or highest > _ONE_TIMESTEP) else "sigma"


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
    if unit == "log_sigma":
        return level
    if unit == "c_noise":
        return 4 * level
    if unit in ("flow", "flow_timestep"):
        share = min(level if unit == "flow" else level / 1000, _MOST_NOISE)
        return math.log(share / (1 - share))
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
