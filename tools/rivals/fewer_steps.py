"""Fewer steps, every one computed, by two solvers: the control."""

from __future__ import annotations

from turbo4d.tools.control import NAMES
from turbo4d.tools.rivals.setting import Setting


def settings(steps: int) -> list[Setting]:
    """Every count from 2, by each solver; all steps only where they give another sample.

    Args:
        steps: of the uncached sample that all is judged by, which Euler's method makes.
    """
    return [
        Setting(f"fewer steps, {NAMES[solver]}", f"{count} steps", steps=count, solver=solver)
        for solver in NAMES
        for count in range(2, steps + (solver != "euler"))
    ]
