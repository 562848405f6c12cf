"""Moves are read off the region tree, whatever the model."""

from __future__ import annotations

import pytest
from turbo4d.compiler.calibrate.moves import groups_of, moves_of, row
from turbo4d.compiler.errors import CalibrationError
from turbo4d.runtime.action import BYPASS, Action
from turbo4d.runtime.region_info import RegionInfo, RegionKind


def region(
    name: str, kind: RegionKind, parent: str | None, relevance: str | None = None
) -> RegionInfo:
    residual = kind in ("block", "chain")
    return RegionInfo(name, kind, parent, residual, slot_bytes=1, flops=1, relevance=relevance)


REGIONS = (
    region("core", "core", None),
    region("level.1", "level", "core"),
    region("level.2", "level", "level.1"),
    region("down.0.0.chain", "chain", "core"),
    region("down.0.0.spatial", "block", "down.0.0.chain", "down.0.0.spatial"),
    region("down.0.0.camera", "block", "down.0.0.chain", "down.0.0.spatial"),
    region("middle.chain", "chain", "level.2"),
    region("middle.spatial", "block", "middle.chain"),
    region("middle.spatial.1", "block", "middle.chain"),
)
GROUPS = groups_of(REGIONS)
MOVES = {move.name: move for move in moves_of(REGIONS, GROUPS)}


def test_groups_hold_each_region_once() -> None:
    assert {group.name: group.regions for group in GROUPS} == {
        "core": ("core",),
        "level.1": ("level.1",),
        "level.2": ("level.2",),
        "chains": ("down.0.0.chain", "middle.chain"),
        "blocks.spatial": ("down.0.0.spatial", "middle.spatial", "middle.spatial.1"),
        "blocks.camera": ("down.0.0.camera",),
    }


def test_every_group_has_a_reuse_and_every_prunable_one_its_prunes() -> None:
    letters = {name: move.letter for name, move in MOVES.items()}
    assert letters == {
        "compute": "C",
        "core": "K",
        "level.1": "L",
        "level.2": "M",
        "chains": "c",
        "spatial": "s",
        "camera": "a",
        "prune0.5.spatial": "p",
        "prune0.25.spatial": "p",
        "prune0.5.camera": "p",
        "prune0.25.camera": "p",
        "bypass": "x",
    }
    # A region that cannot be pruned is computed where the others of its group are pruned.
    assert [*MOVES["prune0.5.spatial"].actions] == ["down.0.0.spatial"]


def test_a_move_executes_the_groups_that_it_leaves_whole() -> None:
    assert MOVES["core"].executed == ()
    assert MOVES["level.1"].executed == ("core", "blocks.camera")
    assert "chains" not in MOVES["bypass"].executed
    assert MOVES["chains"].executed == ("core", "level.1", "level.2")
    assert "blocks.spatial" not in MOVES["prune0.5.spatial"].executed
    assert len(MOVES["compute"].executed) == len(GROUPS)


def test_a_row_takes_the_order_of_its_reuse() -> None:
    assert row(MOVES["level.1"], 2) == {"level.1": Action("reuse", order=2)}
    assert row(MOVES["bypass"]) == dict.fromkeys(("down.0.0.chain", "middle.chain"), BYPASS)
    assert row(MOVES["compute"]) == {}
    with pytest.raises(CalibrationError) as refused:
        row(MOVES["bypass"], 1)
    assert str(refused.value) == "move 'bypass' is wanted with order 1; it takes 0."


def test_moves_may_be_chosen_by_name() -> None:
    chosen = moves_of(REGIONS, GROUPS, use=["core"])
    assert [move.name for move in chosen] == ["compute", "core"]
    with pytest.raises(CalibrationError, match="move 'cor' is unknown to this model; it has bypa"):
        moves_of(REGIONS, GROUPS, use=["cor"])
