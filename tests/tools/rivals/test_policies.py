"""Every setting of every rival is a plan that passes its check, and acts as its authors say."""

import pytest
from turbo4d.runtime.action import REUSE, Action
from turbo4d.tools.rivals import fora, pab, taylorseer
from turbo4d.tools.rivals.deepcache import settings as deepcache
from turbo4d.tools.rivals.fewer_steps import settings as fewer_steps
from turbo4d.tools.rivals.setting import (
    blocks_of,
    core_of,
    distinct,
    levels_of,
    reusing,
    run_key,
    static,
)
from turbo4d.tools.rivals.sweep import sweep

from tests.tools.rivals.networks import REGIONS, STEPS, computed, plan_of, rows_of, signals

SCENES = (signals(), signals(1.5), signals(0.7))
SWEPT = sweep(STEPS, REGIONS, SCENES)


def test_every_plan_of_every_rival_passes_its_check():
    assert len({setting.name for setting in SWEPT}) == len(SWEPT)
    plans = [setting.rows(scene) for setting in SWEPT if setting.rows for scene in SCENES]
    assert len(plans) > 500
    for rows in plans:
        assert len(rows) == STEPS
        assert rows[0] == {}
        plan_of(rows).check(REGIONS)


def test_every_system_is_swept():
    systems = {setting.system for setting in SWEPT}
    assert systems == {
        "uniform interval", "DeepCache", "PAB", "FORA", "TeaCache", "First-Block-Cache",
        "MagCache", "TaylorSeer", "fewer steps, Euler", "fewer steps, DPM-Solver++(2M)",
    }  # fmt: skip


def test_settings_of_a_system_that_do_the_same_are_one():
    rows = reusing((True, False), ["core"])
    one, same = static("a", "one", rows), static("a", "same", rows)
    other = static("a", "other", reusing((True, True), ["core"]))
    assert distinct([one, same, other], SCENES) == [one, other]


def test_runs_that_do_the_same_have_one_key():
    rows = reusing((True,) + (False,) * (STEPS - 1), ["core"])
    key = run_key(plan_of(rows))
    assert key == run_key(plan_of(rows, max_age=99, max_variants=3))
    assert key != run_key(plan_of((*rows[:-1], {"level.1": REUSE})))
    assert run_key(("euler", 7)) == "euler:7"


def test_fewer_steps_has_every_count_by_each_solver():
    found = {(setting.solver, setting.steps) for setting in fewer_steps(20)}
    assert found == {("euler", n) for n in range(2, 20)} | {("dpmpp_2m", n) for n in range(2, 21)}


def test_deepcache_reuses_each_depth():
    used = {
        region for setting in deepcache(STEPS, REGIONS) for row in rows_of(setting, SCENES[0])
        for region in row
    }  # fmt: skip
    assert used == {"core", "level.1", "level.2"}


def test_fora_reuses_every_block_at_once():
    by_knob = {setting.knob: setting for setting in fora.settings(STEPS, REGIONS)}
    rows = rows_of(by_knob["blocks, every 3 steps"], SCENES[0])
    assert computed(rows) == "CKKCKKCKKCKKCKKCKKCK"
    assert set(rows[1]) == set(blocks_of(REGIONS))


def test_pab_broadcasts_each_kind_over_its_range():
    kinds = {kind: blocks_of(REGIONS, kind) for kind in ("spatial", "camera", "motion")}
    rows = pab.broadcast(10, kinds, {"spatial": 2, "camera": 3, "motion": 4}, range(2, 9))
    per_kind = {
        kind: "".join("K" if blocks[0] in (row or {}) else "C" for row in rows)
        for kind, blocks in kinds.items()
    }
    assert per_kind == {"spatial": "CCKCKCKCKC", "camera": "CCKKCKKCKC", "motion": "CCKKKCKKKC"}


def test_taylorseer_raises_its_order_as_values_come_in():
    rows = taylorseer.forecast((True, False, True, False, True, False), ["core"], 2)
    assert [(row or {}).get("core") for row in rows[1::2]] == [
        REUSE, Action("reuse", order=1), Action("reuse", order=2),
    ]  # fmt: skip


def test_a_network_without_levels_is_refused():
    with pytest.raises(ValueError, match="no level; this policy needs one"):
        levels_of(REGIONS[:1])
    assert core_of(REGIONS) == "core"
