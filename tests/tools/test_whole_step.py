"""Whole-step reuse is searched among plans that can be carried out, and stops at the PSNR."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.action import REUSE
from turbo4d.runtime.drift import DRIFT
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.plan import Plan, RegionInfo
from turbo4d.tools.whole_step import (
    computed_steps,
    drift,
    fewest_steps,
    rival_of,
    whole_step_plans,
)

SIGMA = st.floats(1e-3, 1e3)
REGIONS = (
    RegionInfo("core", "core", None, residual=False, slot_bytes=4, flops=9),
    RegionInfo("a.chain", "chain", "core", residual=True, slot_bytes=4, flops=4),
)


def plan(rows):
    levels = tuple(edm_sigmas(20)[:-1].tolist())
    return Plan("p", "m", Geometry(2, 4, 5, 8, 8), levels, "sigma", {"main": rows}, 4, 8)


@pytest.fixture(scope="module")
def plans():
    return whole_step_plans(plan(({},) * 20), "core")


def test_a_rival_where_only_parts_are_reused():
    computed = ({},) * 19
    assert rival_of(plan((*computed, {"a.chain": REUSE})), REGIONS) == "core"
    assert rival_of(plan((*computed, {"core": REUSE})), REGIONS) is None
    assert rival_of(plan((*computed, {})), REGIONS) is None


def test_every_plan_passes_its_check(plans):
    assert all(one.check(REGIONS).variants for one in plans)
    counts = [computed_steps(one) for one in plans]
    assert counts == sorted(counts)
    assert counts[-1] == 20
    assert counts[0] < 8


def test_the_search_finds_the_first_that_reaches(plans):
    for wanted in (0, 9, 15, 20):
        found = fewest_steps(plans, lambda one, at=wanted: computed_steps(one) >= at, print)
        assert found == next(one for one in plans if computed_steps(one) >= wanted)


@given(SIGMA, SIGMA, SIGMA)
def test_drift_is_additive_and_positive(one, two, three):
    high, middle, low = sorted([one, two, three], reverse=True)
    whole = drift(high, middle) + drift(middle, low)
    assert drift(high, low) == pytest.approx(whole, abs=1e-9)
    assert drift(high, low) >= 0


@given(SIGMA, SIGMA)
def test_drift_is_the_integral_of_the_table(one, two):
    high, low = max(one, two), min(one, two)
    start, stop, count = math.log(low), math.log(high), 500
    width, table = (stop - start) / count, DRIFT["core"]

    def density(at):
        points = [table[0], *[p for p in table if p[0] <= at][-1:]]
        left, right = points[-1], next((p for p in table if p[0] > at), table[-1])
        if at <= table[0][0] or left == right:
            return left[1]
        return left[1] + (right[1] - left[1]) * (at - left[0]) / (right[0] - left[0])

    riemann = sum(density(start + (n + 0.5) * width) * width for n in range(count))
    assert drift(high, low) == pytest.approx(riemann, rel=1e-2, abs=1e-4)
