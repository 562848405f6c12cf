"""Slots that wait on the host between being written and being read."""

import re
from dataclasses import replace

import pytest
import torch
from turbo4d.runtime.errors import OptionError, PlanError

from tests.runtime.fake import REUSE, plan_of
from tests.runtime.wide_runs import (
    BYPASS,
    REGIONS,
    SIZE,
    TWICE,
    WAITING,
    expected,
    run_all,
    wide_runner,
)


@pytest.mark.parametrize("poison", ["0", "1"])
@pytest.mark.parametrize("storage", ["compute", "int8"])
def test_what_waits_is_moved_and_comes_back(monkeypatch, copies, storage, poison):
    monkeypatch.setenv("TURBO4D_POISON", poison)
    made = plan_of(*WAITING, storage={"up.chain": storage})
    outputs, report = run_all(wide_runner(made), made, runs=2, offload=True)
    assert all(map(torch.equal, outputs, expected(made)))
    proof = made.check(REGIONS, offload=True)
    assert report["cache_peak_bytes"] == proof.peak_bytes <= made.check(REGIONS).peak_bytes
    assert report["cache_host_bytes"] >= proof.slot_bytes["up.chain"]
    assert copies.moves["out"] > 0
    assert copies.moves["back"] > 0


def test_a_bound_that_only_offload_keeps(copies):
    rows = [{}, BYPASS, REUSE, BYPASS, {"up.chain": "reuse"}]
    made = plan_of(*rows, max_cache_bytes=4 * SIZE)
    with pytest.raises(PlanError, match="all slots hold up to 5120 bytes"):
        wide_runner(made)
    fast = wide_runner(replace(made, max_cache_bytes=None))
    outputs, report = run_all(fast, made, plan=made, offload=True)
    assert all(map(torch.equal, outputs, expected(made)))
    assert report["cache_peak_bytes"] == 4 * SIZE


def test_what_comes_back_leaves_again_uncopied(copies):
    made = plan_of(*TWICE, max_age=7)
    run_all(wide_runner(made), made, offload=True)
    assert copies.moves == {"out": 1, "back": 2}


def test_options_that_contradict_each_other_are_refused():
    made = plan_of({}, BYPASS, {}, {"up.chain": "reuse"})
    both = (
        "fixed_slots and offload are both on; what waits on the host has no fixed address. Leave "
        "one off."
    )
    for fast, options, text in (
        (wide_runner(made), {"fixed_slots": True, "offload": True}, both),
        (
            wide_runner(made),
            {"adaptive": True, "offload": True},
            "offload and adaptive are both on; an adaptive run cannot tell what its next step "
            "reads. Leave one off.",
        ),
        (
            wide_runner(made),
            {"offload": True},
            "offload: the slots are on cpu; wanted a CUDA device, beside which the host can hold "
            "them. Leave offload off.",
        ),
    ):
        with pytest.raises(OptionError, match=f"^{re.escape(text)}$"):
            run_all(fast, made, **options)
