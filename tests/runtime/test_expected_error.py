"""The expected error of a reuse: what it is measured from, and that it ranks plans as they err."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from turbo4d.runtime.action import REUSE, Action
from turbo4d.runtime.drift import DRIFT
from turbo4d.runtime.expected_error import expected_error, row_error
from turbo4d.runtime.region_info import RegionInfo
from turbo4d.runtime.trajectory import POINTS

SIGMAS = [math.exp(level) for level, _ in POINTS["core"]]
REGIONS = {
    "core": RegionInfo("core", "core", None, residual=False, slot_bytes=8, flops=100),
    "level.1": RegionInfo("level.1", "level", "core", residual=False, slot_bytes=8, flops=60),
    "chain": RegionInfo("chain", "chain", "level.1", residual=True, slot_bytes=8, flops=10),
    "block": RegionInfo("block", "block", "chain", residual=True, slot_bytes=8, flops=5),
}
# Steps in letters (C computed, K the core reused, L the outermost level), and the PSNR in the
# object that they reached on two validation scenes of nano-v1, in dB.
MEASURED = {
    "CKKKKKKKKKKLCCCCLLKK": 48.2,
    "CKKKKKKKKKKKCCCCLLKK": 44.1,
    "CKKKKKKKKKKKCCCCLKKK": 42.4,
    "CKKKKKKKKKKKCCLCLKKK": 41.6,
    "CKKKKKKKKKKKCLCLLKKK": 39.9,
    "CKKKKKKKKKKKLCLCLKKK": 37.8,
    "CKKKKKKKKKKKLCLLLKKK": 35.3,
    "CKKKKKKKKKKKKCLCLKKK": 33.3,
    "CKKKKKKKKKKKLCLLKKKK": 32.4,
    "CKKKKKKKKKKKCLLLKKKK": 30.9,
    "CKKKKKKKKKKKLLLLLKKK": 26.9,
}


@pytest.mark.parametrize("kind", ["core", "level", "chain"])
def test_one_reuse_of_the_step_before_errs_as_measured(kind):
    densities = [density for _, density in reversed(DRIFT[kind])]
    for step, (before, sigma) in enumerate(pairwise(SIGMAS), 1):
        after = SIGMAS[step + 1] if step + 1 < len(SIGMAS) else 0.0
        measured = densities[step - 1] * math.log(before / sigma)
        assert expected_error(kind, before, sigma, after) == pytest.approx(measured, rel=1e-6)


def test_an_older_slot_and_a_longer_step_err_more():
    errors = [expected_error("core", SIGMAS[at], SIGMAS[13], SIGMAS[14]) for at in (12, 11, 9, 0)]
    assert errors == sorted(errors)
    whole = expected_error("core", SIGMAS[12], SIGMAS[13], 0.0)
    half = expected_error("core", SIGMAS[12], SIGMAS[13], SIGMAS[13] / 2)
    assert whole == pytest.approx(2 * half)


def test_plans_are_ranked_as_their_measured_errors():
    def total(letters: str) -> float:
        sources, found = {}, 0.0
        rows = {"C": {}, "K": {"core": REUSE}, "L": {"level.1": REUSE}}
        for step, letter in enumerate(letters):
            found += row_error(rows[letter], sources, step, SIGMAS, REGIONS)
            computed = {"C": ("core", "level.1"), "L": ("core",), "K": ()}[letter]
            sources.update(dict.fromkeys(computed, step))
        return found

    found = [total(letters) for letters in MEASURED]
    better = [(a, b) for a in range(len(found)) for b in range(a + 1, len(found))]
    agreeing = sum(found[a] < found[b] for a, b in better)
    assert agreeing / len(better) > 0.9  # Kendall's tau above 0.8


def test_a_row_errs_by_the_oldest_slot_of_each_kind_and_by_the_tokens_it_drops():
    sources = {"chain": 11, "block": 10}
    after = SIGMAS[13]

    def errs(kind, source):
        return expected_error(kind, SIGMAS[source], SIGMAS[12], after)

    half = Action("prune", keep=0.5)
    row = {"chain": REUSE, "block": half}
    assert row_error(row, sources, 12, SIGMAS, REGIONS) == pytest.approx(
        errs("chain", 11) + 0.5 * errs("block", 10)
    )
    assert row_error({}, sources, 12, SIGMAS, REGIONS) == 0.0
    # Blocks were not measured: they take the chains' tables.
    assert errs("block", 10) == errs("chain", 10)
