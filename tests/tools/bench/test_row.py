"""A row's name, digest and figures."""

import dataclasses
import json

import pytest
from turbo4d.tools.bench.row import RowResult, RowSpec

SPEC = RowSpec("cpu", "20-steps", "turbo4d:fast", "fast", "eager", "malloc", {"steps": 20})
CONTRACT = (
    "suite", "system", "plan", "lowering", "latency_s", "latency_spread", "peak_bytes", "compile_s",
    "psnr_db", "psnr_mask_db", "ssim", "gt_psnr_db", "error",
)  # fmt: skip


def test_a_name_says_what_tells_rows_apart():
    assert SPEC.name == "20-steps/turbo4d:fast/eager/malloc"
    assert RowSpec("cpu", "20-steps", "eager").name == "20-steps/eager"


@pytest.mark.parametrize("change", [{"settings": {"steps": 50}}, {"runs": 9}, {"label": ""}])
def test_a_digest_changes_with_what_is_run(change):
    assert dataclasses.replace(SPEC, **change).digest != SPEC.digest
    assert RowSpec.from_json(json.loads(json.dumps(SPEC.to_json()))).digest == SPEC.digest


def test_a_row_begins_with_the_contracts_fields():
    row = RowResult(SPEC, error="it broke.").to_json()
    assert tuple(row)[: len(CONTRACT)] == CONTRACT
    assert row["error"] == "it broke."
    assert row["latency_s"] is row["speedup"] is row["psnr_db"] is None
    json.dumps(row)


def test_figures_are_medians_of_runs_that_stood_side_by_side():
    found = RowResult(SPEC, (1.0, 3.0, 2.0), (8.0, 12.0, 10.0), first_call_s=7.0)
    row = found.to_json()
    assert row["latency_s"] == 2.0
    assert row["latency_spread"] == [1.0, 3.0]
    assert row["baseline_s"] == 10.0
    assert row["speedup"] == 5.0
    assert row["compile_s"] == 5.0


def test_compiling_takes_no_less_than_nothing():
    assert RowResult(SPEC, (2.0,), first_call_s=1.9).to_json()["compile_s"] == 0.0


def test_a_fact_replaces_the_field_of_its_name():
    facts = {"peak_bytes": 5, "speedup": None, "psnr_db": 30.0, "knob": "every 2 steps"}
    row = RowResult(SPEC, (1.0,), (2.0,), peak_bytes=1, facts=facts).to_json()
    assert row["peak_bytes"] == 5
    assert row["speedup"] is None
    assert row["psnr_db"] == 30.0
    assert row["knob"] == "every 2 steps"
