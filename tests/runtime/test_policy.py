import math
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from turbo4d.runtime import policy
from turbo4d.runtime.errors import OptionError, PlanError
from turbo4d.runtime.passage import Passage
from turbo4d.runtime.plan import RegionInfo
from turbo4d.runtime.policy import PRESETS, THRESHOLDS, Thresholds, resolve

from tests.runtime.fake import GEOMETRY, REGIONS, SIGMAS

# SV4D's own schedule of 20 steps.
SV4D = [
    *(700, 510.4, 366.6, 259.0, 179.7, 122.2, 81.26, 52.68, 33.19, 20.24),
    *(11.89, 6.68, 3.57, 1.79, 0.833, 0.353, 0.132, 0.042, 0.011, 0.002),
]
DDIM = [float(timestep) for timestep in range(999, 0, -50)]  # the last at 49, then no noise
SIGMA = st.floats(1e-3, 1e3)
SCHEDULES = st.lists(SIGMA, min_size=1, max_size=30, unique=True).map(
    lambda levels: sorted(levels, reverse=True)
)
SMALL = st.floats(0, 2)


def plan(preset, levels=SV4D, **options):
    fields = {"model": "abc", "geometry": GEOMETRY, "regions": REGIONS, **options}
    return resolve(preset, levels=levels, **fields)


def spent_flops(thresholds: Thresholds, levels) -> int:
    with patch.dict(THRESHOLDS, balanced=thresholds):
        proof = plan("balanced", levels).check(REGIONS)
    return sum(100 - skipped for skipped in proof.skipped_flops["main"])


def full_steps(made) -> int:
    return sum(row == {} for row in made.streams["main"])


@pytest.mark.parametrize("preset", PRESETS)
@given(levels=SCHEDULES)
def test_every_preset_gives_a_legal_plan_that_computes_first(preset, levels):
    made = plan(preset, levels)
    assert made.streams["main"][0] == {}
    assert len(made.check(REGIONS).variants) <= made.max_variants


@pytest.mark.parametrize(("preset", "exact"), [("none", False), ("exact", True)])
def test_presets_that_compute_everything(preset, exact):
    proof = plan(preset).check(REGIONS)
    (key,) = proof.variants
    assert (key.name, key.exact, proof.peak_bytes) == ("compute", exact, 0)


def test_each_preset_spends_less_than_the_one_before():
    spent = [sum(plan(p).check(REGIONS).skipped_flops["main"]) for p in PRESETS]
    assert spent == sorted(spent)
    assert spent[1] == 0
    assert spent[2] < spent[3] < spent[4]


@given(SCHEDULES, SMALL, st.floats(0, 1))
def test_a_larger_core_threshold_never_spends_more(levels, low, more):
    # Of the core alone: beside chains, a core that is reused longer leaves older slots to them.
    thresholds = [Thresholds({"core": tau}, 9) for tau in (low, low + more)]
    assert spent_flops(thresholds[1], levels) <= spent_flops(thresholds[0], levels)


@given(SCHEDULES, SMALL, st.floats(0, 1), st.integers(1, 9))
def test_larger_thresholds_or_ages_never_compute_more_steps(levels, low, more, age):
    made = []  # of one kind: between two kinds a larger threshold also refreshes fewer slots
    for tau, max_age in [(low, age), (low + more, age), (low + more, age + 1)]:
        with patch.dict(THRESHOLDS, balanced=Thresholds({"chain": tau}, max_age)):
            made.append(plan("balanced", levels, use=("chain",)))
    counts = [full_steps(each) for each in made]
    assert counts == sorted(counts, reverse=True)


def test_a_step_that_reuses_chains_refreshes_the_cores_slot():
    thresholds = Thresholds({"core": 2.5, "chain": 9.0}, 9)
    levels = [math.exp(-0.4 * n) for n in range(9)]
    with (
        patch.dict(THRESHOLDS, balanced=thresholds),
        patch.object(Passage, "weighed", lambda self, since, step: step - since),
    ):
        made = plan("balanced", levels)
    letters = "".join(
        {"core": "K"}.get(next(iter(row), ""), "c") if row else "C" for row in made.streams["main"]
    )
    assert letters == "CKKcKKcKK"


def orders(made) -> str:
    cells = [next(iter(row.values()), None) for row in made.streams["main"]]
    return "".join("C" if action is None else str(action.order) for action in cells)


def test_two_values_are_extrapolated_no_further_than_they_are_apart():
    thresholds = Thresholds({"core": 3.5}, 9)
    evenly = [math.exp(-0.4 * n) for n in range(9)]
    # The second computed step is near the first: its next ones are too far for the two.
    after_a_short_step = [8.0, 7.9, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625]
    computed = {0, 1, 5}

    def weighed(self, since, step):
        return 9.0 if step in computed else 1.0

    with patch.dict(THRESHOLDS, balanced=thresholds):
        with patch.object(Passage, "weighed", lambda self, since, step: step - since):
            assert orders(plan("balanced", evenly)) == "C000C111C"
        with patch.object(Passage, "weighed", weighed):
            assert orders(plan("balanced", after_a_short_step)) == "CC000C111"
    with (
        patch.dict(THRESHOLDS, balanced=replace(thresholds, order=0)),
        patch.object(Passage, "weighed", lambda self, since, step: step - since),
    ):
        assert orders(plan("balanced", evenly)) == "C000C000C"


def test_a_kind_gives_way_to_a_smaller_one_that_skips_as_much():
    nearly = [
        RegionInfo("core", "core", None, False, 1, 100),
        RegionInfo("stack.0.chain", "chain", "core", True, 1, 50),
        RegionInfo("stack.1.chain", "chain", "core", True, 1, 40),
    ]
    assert reused(plan("fast", regions=nearly)) == {"stack.0.chain", "stack.1.chain"}
    assert reused(plan("fast", regions=nearly, use=("core",))) == {"core"}
    less = [*nearly[:2], replace(nearly[2], flops=39)]
    assert reused(plan("fast", regions=less)) == {"core"}


def test_where_the_bytes_do_not_suffice_a_plan_holds_fewer_and_larger_slots():
    regions = [
        RegionInfo("core", "core", None, False, 10, 100),
        RegionInfo("stack.0.chain", "chain", "core", True, 10, 50),
        RegionInfo("stack.1.chain", "chain", "core", True, 10, 50),
    ]

    def made(most):
        return plan("fast", DDIM, regions=regions, max_cache_bytes=most)

    def has(found):
        return reused(found), any("1" in letter for letter in orders(found))

    chains = {"stack.0.chain", "stack.1.chain"}
    assert has(made(None)) == (chains, True)
    twice = made(None).check(regions).peak_bytes
    assert has(made(twice)) == (chains, True)
    once = made(twice - 1).check(regions).peak_bytes
    assert has(made(twice - 1)) == (chains, False)
    assert has(made(once - 1))[0] == {"core"}


@given(SCHEDULES)
def test_what_passes_adds_up_to_the_whole_run(levels):
    passage = Passage(levels)
    parts = [passage.between(step, step + 1) for step in range(len(levels))]
    assert all(part >= 0 for part in parts)
    assert sum(parts) == pytest.approx(passage.between(0, len(levels))) == pytest.approx(1.0)


def test_what_a_reuse_counts_grows_with_what_its_step_makes():
    passage = Passage([4.0, 3.0, 2.0, 1.0])  # 0.7 of sigma / (1 + sigma), 0.3 of sigma
    flows = [4 / 5, 3 / 4, 2 / 3, 1 / 2, 0]
    places = [0.7 * flow / flows[0] + 0.3 * (4 - at) / 4 for at, flow in enumerate(flows)]
    for step in (1, 3):
        weight = 4 * (places[step] - places[step + 1])
        wanted = (places[0] - places[step]) * weight**0.5
        assert passage.weighed(0, step) == pytest.approx(wanted)


def test_a_last_step_that_takes_much_away_is_computed():
    for preset in THRESHOLDS:
        assert plan(preset, DDIM).streams["main"][-1] == {}
        assert plan(preset, SV4D).streams["main"][-1] != {}  # the last at 0.002


def test_nothing_is_extrapolated_from_two_steps_that_follow_each_other():
    computed = {0, 1, 3, 6, 7}

    def weighed(self, since, step):
        return 9.0 if step in computed else 1.0

    evenly = [math.exp(-0.4 * n) for n in range(10)]
    with (
        patch.dict(THRESHOLDS, balanced=Thresholds({"core": 3.5}, 9)),
        patch.object(Passage, "weighed", weighed),
    ):
        assert orders(plan("balanced", evenly)) == "CC0C11CC00"
        # Steps 1 and 3 of every second one follow each other.
        odd = plan("balanced", evenly, streams={"odd": range(1, 10, 2)}).streams["odd"]
    assert {action.order for action in (odd[5] or {}).values()} == {0}


def test_noise_beyond_what_a_network_reads_is_one_noise():
    assert Passage([700.0, 100.0, 1.0]).between(0, 1) < 0.02
    assert Passage([10.0, 5.0, 1.0]).between(0, 1) > 0.2


def test_a_level_is_reused_where_too_much_has_passed_for_the_core():
    regions = [
        RegionInfo("core", "core", None, False, 1, 9),
        RegionInfo("level.1", "level", "core", False, 1, 5),
        RegionInfo("x.chain", "chain", "level.1", True, 1, 1),
    ]

    def named(level):
        with patch.dict(THRESHOLDS, fast=Thresholds({"core": 0.1, "level": level}, 40)):
            rows = plan("fast", SV4D, regions=regions).streams["main"]
        return [next(iter(row or {}), "") for row in rows]

    assert named(0.3).count("level.1") > named(0.2).count("level.1") > 0
    assert named(0.1).count("level.1") == 0


def reused(made) -> set[str]:
    return {name for row in made.streams["main"] for name in row}


def test_use_restricts_the_kinds():
    assert reused(plan("fast", use=("chain",))) == {"down.chain", "up.chain"}
    assert reused(plan("fast", use=("core",))) == {"core"}
    assert reused(plan("fast")) == {"core"}


def test_a_model_without_a_core_reuses_its_chains():
    chains = tuple(
        RegionInfo(r.name, "chain", None, residual=True, slot_bytes=1, flops=1) for r in REGIONS[1:]
    )
    assert reused(plan("fast", regions=chains)) == {"down.chain", "up.chain"}


def test_of_nested_levels_the_outermost_is_reused():
    levels = [
        RegionInfo("core", "core", None, False, 1, 1),
        RegionInfo("level.1", "level", "core", False, 1, 1),
        RegionInfo("x.chain", "chain", "level.1", True, 1, 1),
        RegionInfo("level.2", "level", "x.chain", False, 1, 1),
    ]
    assert reused(plan("fast", regions=levels, use=("level",))) == {"level.1"}


@pytest.mark.parametrize(
    ("preset", "options", "text"),
    [
        (
            "fats",
            {},
            "preset 'fats' is unknown; there are balanced, exact, fast, none, quality.",
        ),
        (
            "fast",
            {"use": ("stage",)},
            "kind 'stage' is unknown; there are block, chain, core, level.",
        ),
        (
            "fast",
            {"use": ("level",)},
            "kind 'level': the model has no such region; it has chain, core.",
        ),
        (
            "fast",
            {"regions": ()},
            "preset: the model has no region of kind chain, core, level; it has none at all. "
            "Use plan 'exact' or other kinds.",
        ),
    ],
)
def test_what_matches_nothing_is_refused(preset, options, text):
    with pytest.raises(OptionError) as caught:
        plan(preset, **options)
    assert str(caught.value) == text


def test_levels_that_do_not_fall_are_refused():
    with pytest.raises(PlanError, match=r"^levels: step 1 has 2 after 1; "):
        plan("fast", [1.0, 2.0])


def test_levels_come_in_any_unit():
    c_noise = [math.log(sigma) / 4 for sigma in SV4D]
    assert plan("fast", c_noise).streams == plan("fast").streams
    assert plan("fast", c_noise).level_unit == "c_noise"
    assert plan("fast", [*SV4D, 0.0]) == plan("fast")


def test_a_stream_is_planned_for_the_steps_at_which_it_runs():
    made = plan("fast", SIGMAS, streams={"even": range(0, 8, 2), "odd": range(1, 8, 2)})
    made.check(REGIONS)
    for first, rows in enumerate((made.streams["even"], made.streams["odd"])):
        assert [row is not None for row in rows] == [n % 2 == first for n in range(8)]
        assert rows[first] == {}
        assert any(rows[first::2])


def test_the_thresholds_name_known_kinds():
    kinds = {kind for thresholds in THRESHOLDS.values() for kind in thresholds.passed}
    assert kinds <= set(policy.KINDS)
