"""Calibrated plans of higher fidelity than any preset's as rows, beside policies that keep as much.

A plan lies in `tools/results/plans/MODEL-DB.json`, as `turbo4d calibrate` wrote it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from turbo4d.runtime.plan import Plan
from turbo4d.tools.bench.row import RowSpec

FOLDER = Path(__file__).parent.parent / "results" / "plans"
_LOWERINGS = ("eager", "native")


def rows(row: Callable[..., RowSpec], *, quick: bool, model: str) -> list[RowSpec]:
    """Rows of each stored plan of a model; none with `quick`.

    Args:
        row: makes one of a system and settings.
        quick: whether there shall be few rows.
        model: that is run.
    """
    found = [] if quick else sorted(FOLDER.glob(f"{model}-*.json"))
    return [
        row(
            f"turbo4d:plan-{path.stem.removeprefix(f'{model}-')}",
            plan=path.stem,
            lowering=lowering,
            plan_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in found
        for lowering in _LOWERINGS
    ]


def plan_of(spec: RowSpec) -> str | Plan:
    """What a row of turbo4d carries out: a preset's name, or the stored plan.

    Args:
        spec: of the row.
    """
    if "plan_sha256" not in spec.settings:
        return spec.plan
    return Plan.load(FOLDER / f"{spec.plan}.json")
