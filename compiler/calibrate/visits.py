"""What one run of a sampler shows of its schedule: each step's level, each stream's steps."""

from __future__ import annotations

import math
from collections.abc import Mapping

from turbo4d.compiler.errors import CalibrationError
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.levels import LevelUnit, check_levels, infer_unit


class Visits:
    """The calls of one run, noted as they come."""

    def __init__(self) -> None:
        self._levels: dict[int, float] = {}
        self._streams: dict[str, list[int]] = {}

    @property
    def streams(self) -> Mapping[str, tuple[int, ...]]:
        """Per stream the steps that it visits, rising."""
        return {name: tuple(sorted(steps)) for name, steps in self._streams.items()}

    def note(self, stream: str, step: int, level: float) -> None:
        """Takes note of a call.

        Args:
            stream: of the call.
            step: of the call.
            level: that the network is fed.

        Raises:
            CalibrationError: where the step came already, or with another level.
        """
        if not math.isfinite(level):
            raise CalibrationError(
                f"calibration: step {step} is fed the level {level}; wanted a number."
            )
        if self._levels.setdefault(step, level) != level:
            raise CalibrationError(
                f"calibration: step {step} has level {self._levels[step]:g} in one stream and "
                f"{level:g} in {stream!r}; give steps of one level one number."
            )
        if step in self._streams.setdefault(stream, []):
            raise CalibrationError(
                f"calibration: step {step} of stream {stream!r} ran twice; call "
                "denoiser.step(index, stream=...) before each call, with a stream for each "
                "guidance branch."
            )
        self._streams[stream].append(step)

    def schedule(self, unit: LevelUnit | None) -> tuple[tuple[float, ...], LevelUnit]:
        """The level of each step, and what it is.

        Args:
            unit: of the levels, None to infer it.

        Raises:
            CalibrationError: where a step is missing, or the levels are no schedule.
        """
        steps = sorted(self._levels)
        levels = tuple(self._levels[step] for step in steps)
        unit = unit or infer_unit(levels)
        if steps != [*range(len(steps))]:
            missing = next(step for step in range(len(steps)) if step not in self._levels)
            raise CalibrationError(
                f"calibration: no stream ran step {missing}; number the steps from 0 without gaps."
            )
        try:
            check_levels(levels, unit)
        except PlanError as error:
            raise CalibrationError(
                f"calibration: {error} Where a step calls the network more than once, call "
                "denoiser.step(index, stream=...) before each call, with a stream for each branch."
            ) from error
        return levels, unit
