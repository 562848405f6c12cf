"""Predicted times of variants, steps and plans: what they add up, and what makes them differ."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.costs import variant_flops
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.machine import Machine
from turbo4d.compiler.predicted_time import (
    plan_seconds,
    plan_times,
    prologue_seconds,
    step_seconds,
    uncached_seconds,
    variant_seconds,
    variant_work,
)
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.plan_check import PlanCheck
from turbo4d.runtime.region_info import bytes_of
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.captures import exported
from tests.runtime.fake import plan_of

PRODUCTS = Machine("products alone", 1.0, float("inf"), 0.0)
BYTES = Machine("bytes alone", float("inf"), 1.0, 0.0)


@cache
def model() -> Analysis:
    return analyse(exported("chain"))


def made(*rows: object, **fields: object) -> tuple[Plan, PlanCheck]:
    analysis = model()
    plan = plan_of(
        *rows,
        model=analysis.capture.fingerprint,
        geometry=analysis.geometry,
        **fields,
    )
    return plan, plan.check([region.info for region in analysis.regions])


def test_a_variant_is_what_its_graph_asks() -> None:
    key = VariantKey((), (), exact=True)
    work = variant_work(model(), key)
    assert work is variant_work(model(), key)  # counted once
    assert variant_seconds(model(), key, PRODUCTS) == work.flops
    assert work.flops >= variant_flops(specialise(model(), key))


def test_a_plan_is_its_steps_and_a_prologue_for_each_stream() -> None:
    _, check = made({}, {"core": "reuse"}, {}, None)
    steps = [step_seconds(model(), check, "main", step, PRODUCTS) for step in range(4)]
    assert steps[0] == steps[2] > steps[1] > steps[3] == 0.0
    once = prologue_seconds(model(), PRODUCTS)
    assert plan_seconds(model(), check, PRODUCTS) == sum(steps) + once
    times = plan_times(model(), check, PRODUCTS)
    assert times.by_step == tuple(steps)
    assert times.run_s == sum(steps) + once
    assert times.uncached_s == 3 * uncached_seconds(model(), PRODUCTS)
    assert exact_form(model()).prologue.flops <= once == times.prologue_s
    _, plain = made({}, {}, exact=False)
    assert plan_times(model(), plain, PRODUCTS).prologue_s == 0.0


def test_slots_are_looked_at_extrapolated_and_encoded() -> None:
    info = next(region.info for region in model().regions if region.kind == "core")
    plan, check = made({}, {}, {"core": "reuse(1)"})
    key = check.keys["main"][0]
    assert key is not None
    written = step_seconds(model(), check, "main", 0, BYTES) - variant_seconds(model(), key, BYTES)
    assert written == pytest.approx(info.slot_bytes)
    key = check.keys["main"][2]
    assert key is not None
    read = step_seconds(model(), check, "main", 2, BYTES) - variant_seconds(model(), key, BYTES)
    assert read == pytest.approx(3 * info.slot_bytes)
    halved = replace(plan, storage={"core": "float16"})
    smaller = halved.check([region.info for region in model().regions])
    more = step_seconds(model(), smaller, "main", 0, BYTES) - step_seconds(
        model(), check, "main", 0, BYTES
    )
    stored = bytes_of("core", {"core": info}, halved.storage)
    assert more == pytest.approx(info.slot_bytes + stored)
