"""What the adaptive rivals make of a scene."""

import pytest
import torch
from turbo4d.tools.rivals import first_block_cache, magcache, teacache
from turbo4d.tools.rivals.accumulated import thresholds, until_spent
from turbo4d.tools.rivals.signals import Signals, signals_of

from tests.tools.rivals.networks import REGIONS, STEPS, computed, rows_of, signals


def test_a_step_is_computed_once_the_changes_are_spent():
    changes = (0.4, 0.4, 0.4, 0.1, 0.9, 0.1)
    assert until_spent(changes, 1.0, 1, last=False) == (1, 0, 0, 1, 0, 1, 0)
    assert until_spent(changes, 1.0, 3, last=True) == (1, 1, 1, 0, 0, 1, 1)


def test_thresholds_are_in_equal_ratios():
    assert thresholds(0.01, 1.0, 3) == (0.01, 0.1, 1.0)


def test_teacache_finds_the_polynomial_behind_the_calibration_scenes():
    found = teacache.coefficients([signals(), signals(2.0)])
    assert found == pytest.approx((0.0, 0.5, 1.0, 0.0, 0.0), abs=1e-6)
    assert teacache.rescaled([0.2, 0.1], (-0.05, 0.5)) == pytest.approx([0.05, 0.0])


def test_teacache_computes_where_the_scene_changes():
    by_knob = {one.knob: one for one in teacache.settings(REGIONS, [signals()])}
    quiet, lively = (rows_of(by_knob["threshold 0.26"], signals(scale)) for scale in (0.5, 1.5))
    assert computed(quiet) == "CKKKKKKKKKKKKKCKKKKK"
    assert computed(lively).count("C") > computed(quiet).count("C")


def test_first_block_cache_compares_with_the_last_computed_step():
    scene = Signals((), (), ((), (0.4,), (0.8, 0.4), (1.2, 0.8, 0.4)), ())
    assert first_block_cache.computed_by(scene, 0.5, 1) == (True, False, True, False)
    assert first_block_cache.computed_by(scene, 0.5, 2) == (True, True, False, True)


def test_magcache_sums_the_distance_of_the_magnitude_from_one():
    growth = (0.9, 0.9, 0.9, 0.9)
    # 0.1; 0.1 + 0.19; then anew.
    assert magcache.computed_by(growth, 0.25, 9, 0) == (True, False, True, False, True)
    assert magcache.computed_by(growth, 9.0, 2, 0) == (True, False, False, True, False)
    assert magcache.computed_by(growth, 9.0, 9, 3) == (True, True, True, False, False)
    assert magcache.ratios([signals(0.0), signals(1.0)])[13] == pytest.approx(0.95, abs=0.001)


def test_signals_are_relative_to_the_older_value_and_survive_their_file():
    ones = torch.ones(2, 3, 2, 2)
    kept = {
        "modulated": [ones, 1.5 * ones, 3 * ones],
        "in": [ones, ones, ones],
        "out": [2 * ones, 3 * ones, 5 * ones],
        "core": [2 * ones, -1 * ones, 3 * ones],
    }
    found = signals_of(kept)
    assert found.modulated == (0.5, 1.0)
    assert found.output == (1.5, 4.0)
    assert found.first_block == ((), (1.0,), (3.0, 1.0))
    assert found.growth == (0.5, 3.0)
    assert Signals.from_json(found.to_json()) == found
    assert len(signals().first_block) == STEPS
