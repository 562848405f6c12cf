"""Which moves are searched among: those that save much and that nothing cheaper makes idle."""

from __future__ import annotations

from turbo4d.compiler.calibrate.moves import groups_of, moves_of
from turbo4d.compiler.calibrate.saving import saving
from turbo4d.runtime.region_info import RegionInfo, RegionKind


def _region(name: str, kind: RegionKind, parent: str | None) -> RegionInfo:
    residual = kind in ("chain", "block")
    return RegionInfo(name, kind, parent, residual=residual, slot_bytes=8, flops=100)


STEP = _region("step", "step", None)
CORE = _region("core", "core", "step")
CHAINS = [_region(f"stack.{at}.chain", "chain", "core") for at in range(2)]
LEVELS = [_region("level.1", "level", "core"), _region("level.2", "level", "level.1")]
SECONDS = {"compute": 1.0, "fit": 0.0, "core": 0.01, "chains": 0.05, "bypass": 0.04}


def names(regions: list[RegionInfo], **seconds: float) -> set[str]:
    groups = groups_of(regions)
    moves = moves_of(regions, groups)
    taken = {move.name: {**SECONDS, **seconds}.get(move.name, 0.5) for move in moves}
    return {move.name for move in saving(moves, groups, taken)}


def test_beside_a_fit_neither_the_core_is_reused_nor_a_chain_left_out() -> None:
    assert names([STEP, CORE, *CHAINS]) == {"compute", "fit", "chains"}


def test_without_a_fit_they_are_searched_too() -> None:
    alone = _region("core", "core", None)
    assert names([alone, *CHAINS]) == {"compute", "core", "chains", "bypass"}


def test_of_smaller_regions_the_outermost_level_stays() -> None:
    assert names([STEP, CORE, *LEVELS, *CHAINS]) == {"compute", "fit", "level.1"}


def test_what_saves_little_is_left_out() -> None:
    assert names([STEP, CORE, *CHAINS], chains=0.9) == {"compute", "fit"}
