"""Measures what reusing one kind of region alone buys and costs on nano, at three strengths.

Every plan runs beside the uncached network on the same held-out scenes, in turn: block, chain,
level and core reuse under the thresholds of `quality`, `balanced` and `fast`, the exact passes
alone, the presets as they are, and uncached runs of fewer steps by two solvers.

Example:
    python tools/measure/regions.py --scenes 0-4 --runs 3 --out tools/results/regions-nano-v1.json
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.policy import KINDS, THRESHOLDS, resolve
from turbo4d.tools.plan_rows import Way, command
from turbo4d.tools.sampling import SOLVERS, Turbo

FEWER_STEPS = (3, 4, 5, 6, 8, 10)


def preset_plan(turbo: Turbo, preset: str, use: tuple[str, ...] | None = None) -> Plan:
    """A preset for the network of turbo's last session, and its steps.

    Args:
        turbo: that has been sampled.
        preset: its name.
        use: kinds of region it may reuse.
    """
    like = turbo.plan
    if like is None:
        raise ValueError("preset-plan: the network has not been sampled yet")
    return resolve(
        preset,
        levels=edm_sigmas(turbo.steps).tolist(),
        model=like.model,
        geometry=like.geometry,
        regions=turbo.regions,
        use=use,
    )


def ways_of(turbo: Turbo) -> dict[str, Way]:
    """Presets, "kind at preset" for each kind of region alone, and runs of fewer steps."""
    alone = {
        f"{kind} at {preset}": Way(preset_plan(turbo, preset, (kind,)))
        for kind in KINDS
        for preset in THRESHOLDS
    }
    presets = {preset: Way(preset_plan(turbo, preset)) for preset in ("exact", *THRESHOLDS)}
    fewer = {
        f"{count} steps, {solver}": Way(None, steps=count, solver=solver)
        for count in FEWER_STEPS
        for solver in SOLVERS
    }
    return {**presets, **alone, **fewer}


def _line(row: Mapping[str, Any]) -> str:
    return f"{row['name']:24} {row['speedup']:6.2f}x {row['psnr_mask_db']:7.2f} dB"


def main(argv: Sequence[str] | None = None) -> int:
    return command(__doc__, ways_of, _line, argv)


if __name__ == "__main__":
    sys.exit(main())
