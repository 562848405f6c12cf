"""Suite `cpu`: its rows, the fewer steps that it calls for, and rows that are really run."""

import io
import json
import re
from functools import partial

import pytest
import torch
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.shipped_plans import FOLDER as SHIPPED
from turbo4d.tools.bench import cpu_suite, plan_rows, worker
from turbo4d.tools.bench.row import RowResult
from turbo4d.tools.bench.suite import SuiteOptions
from turbo4d.tools.options import LOWERINGS, PRESETS

SYSTEM = re.compile(r"eager|inductor|turbo4d:[\w-]+|policy:.+|steps:\d+:(euler|dpmpp_2m)")
SMALL = SuiteOptions(quick=True, runs=2, scenes=1, model="tests.tools.small_network:small")


def rows_of(options, group="20-steps"):
    return [row for row in cpu_suite.rows(options) if row.group == group]


@pytest.mark.parametrize("quick", [False, True])
def test_rows_have_names_of_their_own_and_known_systems(quick):
    rows = cpu_suite.rows(SuiteOptions(quick=quick))
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    assert len({row.digest for row in rows}) == len(rows)
    sampled = [row for row in rows if row.group != "overhead"]
    assert all(SYSTEM.fullmatch(row.system) for row in sampled)
    assert {group[0].system for group in (rows_of(SuiteOptions(quick=quick)),)} == {"eager"}


def test_presets_stand_under_every_lowering():
    found = {(row.plan, row.lowering) for row in rows_of(SuiteOptions()) if row.plan}
    presets = {plan for plan, lowering in found if lowering == "eager" and "-" not in plan}
    assert presets == set(PRESETS)
    usable = {name for name, built in LOWERINGS.items() if built} - {"triton-kernels"}
    for preset in ("exact", "balanced", "fast"):
        assert {lowering for plan, lowering in found if plan == preset} == usable
    assert {row.plan for row in rows_of(SuiteOptions(), "50-steps")} >= {"balanced", "fast"}


def test_policies_and_fewer_steps_have_the_settings_of_the_sweep():
    rows = {row.system: row for row in rows_of(SuiteOptions())}
    assert rows["policy:DeepCache"].settings["knob"] == "core, 7 steps around 15, power 2"
    assert rows["steps:9:euler"].settings["count"] == 9
    assert len([name for name in rows if name.startswith("policy:")]) == 8


def test_stored_plans_stand_beside_the_policies_and_are_for_nano():
    rows = [row for row in rows_of(SuiteOptions()) if row.system.startswith("turbo4d:plan-")]
    assert {row.lowering for row in rows} == {"eager", "native"}
    for row in rows:
        plan = plan_rows.plan_of(row)
        assert isinstance(plan, Plan)
        assert row.system == f"turbo4d:plan-{plan.error_budget_db:g}"
        assert (plan.steps, plan.model) == (20, Plan.load(SHIPPED / "nano-20-quality.json").model)
        assert plan.weights_sha256
    assert not any("plan-" in row.system for row in rows_of(SMALL))


def test_the_allocators_setting_is_the_rows_environment():
    rows = [row for row in rows_of(SuiteOptions()) if row.label == "malloc"]
    assert [row.system for row in rows] == ["eager", "inductor"]
    assert all(row.environment == cpu_suite.MALLOC for row in rows)
    assert all(not row.environment for row in rows_of(SuiteOptions()) if row.label != "malloc")


def result(system, lowering, seconds, baseline):
    wanted = (system, lowering, "")
    row = next(
        row for row in rows_of(SuiteOptions()) if (row.system, row.lowering, row.label) == wanted
    )
    return RowResult(row, (seconds,), (baseline,))


def test_fewer_steps_are_as_many_as_fit():
    found = [
        result("inductor", "", 6.0, 9.0),
        result("turbo4d:balanced", "eager", 1.36, 9.0),
        result("turbo4d:fast", "eager", 1.37, 9.0),
        result("turbo4d:balanced", "inductor", 0.95, 9.0),
        result("turbo4d:exact", "eager", 8.0, 9.0),
        result("turbo4d:balanced", "onnxruntime", 1.0, 9.0),
        result("turbo4d:none", "native", 5.0, 9.0),
        result("turbo4d:balanced", "native", 0.5, 9.0),
        result("turbo4d:fast", "native", 1.5, 9.0),
    ]
    asked = cpu_suite.follow_ups(found, SuiteOptions())
    assert [(row.system, row.lowering) for row in asked] == [
        ("steps:3:euler", "eager"),
        ("steps:3:dpmpp_2m", "eager"),
        ("steps:3:euler", "inductor"),
        ("steps:3:dpmpp_2m", "inductor"),
        ("steps:2:euler", "native"),
        ("steps:2:dpmpp_2m", "native"),
    ]
    assert [row.settings["count"] for row in asked] == [3, 3, 3, 3, 2, 2]


def test_those_that_already_stand_are_not_asked_for_again():
    found = [result("turbo4d:balanced", "eager", 4.1, 9.0), result("steps:9:euler", "eager", 4, 9)]
    asked = cpu_suite.follow_ups(found, SuiteOptions())
    assert [row.system for row in asked] == ["steps:9:dpmpp_2m"]


def run(row, folder, words):
    asked = io.StringIO(
        "\n".join([json.dumps({"spec": row.to_json(), "folder": str(folder)}), *words])
    )
    answers = []
    worker.serve(asked, answers.append)
    return answers


def test_rows_are_run_and_judged_by_the_uncached_sample(tmp_path):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()  # a row has a process of its own, a test has not
    row = partial(cpu_suite._row, SMALL, 8)
    words = ["first", "run", "facts"]
    fast = row("turbo4d:fast", plan="fast", lowering="eager")
    ready, first, timed, turbo = run(fast, tmp_path, words)
    assert ready["ready"]
    assert first["seconds"] > timed["seconds"] > 0
    assert turbo["peak_bytes"] >= ready["floor_bytes"] > 0
    facts = turbo["facts"]
    assert 20 < facts["psnr_db"] < 200
    assert 0.9 < facts["ssim"] < 1
    assert facts["calls_by_variant"]["prologue"] == 1
    assert facts["graph_breaks"] == 0
    assert len(list(tmp_path.iterdir())) == 1
    *_, eager = run(row("eager"), tmp_path, ["run", "facts"])
    assert eager["facts"]["psnr_db"] == 200.0
    fewer = row("steps:4:euler", lowering="eager", count=4, solver="euler")
    *_, control = run(fewer, tmp_path, ["run", "facts"])
    assert control["facts"]["psnr_db"] < 60
    json.dumps([turbo, eager, control])


def test_overhead_is_of_one_step(tmp_path):
    row = next(row for row in cpu_suite.rows(SMALL) if row.settings.get("place") == "runtime")
    *_, answer = run(row, tmp_path, ["first", "run", "facts"])
    facts = answer["facts"]
    assert 0 < facts["latency_s"] < 0.1
    assert facts["latency_spread"][0] <= facts["latency_s"] <= facts["p90_s"]
