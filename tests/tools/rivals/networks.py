"""Regions and signals that the rivals' tests share."""

import math

from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.plan import Plan, RegionInfo
from turbo4d.tools.rivals.signals import Signals

STEPS = 20


def region(name, kind, parent):
    return RegionInfo(name, kind, parent, residual=kind != "core", slot_bytes=4, flops=1)


def chain(place, parent):
    blocks = [region(f"{place}.{kind}", "block", f"{place}.chain")
              for kind in ("spatial", "camera", "motion")]  # fmt: skip
    return [region(f"{place}.chain", "chain", parent), *blocks]


REGIONS = (
    region("core", "core", None),
    region("level.1", "level", "core"),
    region("level.2", "level", "level.1"),
    *chain("down.0.0", "core"),
    *chain("down.1.0", "level.1"),
    *chain("middle", "level.2"),
)


def plan_of(rows, max_age=STEPS, max_variants=64):
    levels = tuple(edm_sigmas(STEPS)[:-1].tolist())
    geometry = Geometry(2, 4, 5, 8, 8)
    return Plan("p", "m", geometry, levels, "sigma", {"main": rows}, max_age, max_variants)


def signals(scale=1.0):
    """A run whose values change most in the middle."""
    changes = [scale * 0.3 * math.exp(-(((step - 14) / 3) ** 2)) for step in range(1, STEPS)]
    sums = [0.0]
    for change in changes:
        sums.append(sums[-1] + change)
    return Signals(
        modulated=tuple(changes),
        output=tuple(0.5 * change + change**2 for change in changes),
        first_block=tuple(
            tuple(sums[step] - before for before in sums[:step]) for step in range(STEPS)
        ),
        growth=tuple(1.0 - change / 3 for change in changes),
    )


def rows_of(setting, scene):
    """What an adaptive or static setting makes of a scene."""
    if setting.rows is None:
        raise TypeError(f"{setting.name} has no rows")
    return [row or {} for row in setting.rows(scene)]


def computed(rows):
    """A letter a step: C where nothing is reused."""
    return "".join("C" if not row else "K" for row in rows)
