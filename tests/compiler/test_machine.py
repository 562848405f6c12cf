"""Machines: measured, from the table, and what they make of work."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from turbo4d.compiler import machine_probe
from turbo4d.compiler.machine import (
    BANDWIDTH_SHARE,
    GPUS,
    PRODUCT_SHARE,
    Machine,
    gpu,
    measure_machine,
)
from turbo4d.compiler.work import Work
from turbo4d.runtime.errors import OptionError

RATES = Machine("m", 2.0, 4.0, 3.0, function_s=5.0, group_s=7.0, fresh_s=11.0)
UNITS = (
    (Work(flops=8), 4.0),
    (Work(bytes=8), 2.0),
    (Work(packed_bytes=8), 0.0),
    (Work(functions=1), 5.0),
    (Work(groups=1), 7.0),
    (Work(calls=1), 3.0),
    (Work(fresh_bytes=1), 11.0),
)


@pytest.mark.parametrize(("work", "seconds"), UNITS)
def test_each_count_has_its_rate(work: Work, seconds: float) -> None:
    assert RATES.seconds(work) == seconds


def test_what_a_library_packs_counts_where_it_packs() -> None:
    packing = dataclasses.replace(RATES, repacks=True)
    assert packing.seconds(Work(packed_bytes=8)) == 2.0


def test_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_probe, "_ROUNDS", 2)
    found = measure_machine()
    assert found.name.endswith(f", {torch.get_num_threads()} threads, float32, measured")
    assert found.repacks
    # No machine that runs these tests is outside these bounds; a rate turned over would be.
    assert 1e8 < found.matmul_flops < 1e14
    assert 1e7 < found.bandwidth < 1e13
    assert 1e-8 < found.launch_s < 1e-2
    assert 0 <= found.fresh_s < 1e-6
    assert 0 <= found.group_s < 1e-2
    assert 0 <= found.function_s < 1e-5


def test_rates_are_what_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every job said to take a second, each rate is its job's size, less what is apart."""
    monkeypatch.setattr(
        machine_probe, "_quartiles", lambda jobs, device: dict.fromkeys(jobs, 1.0) | {"held": 0.25}
    )
    rates = machine_probe.rates_of(torch.float32, torch.device("cpu"))
    assert rates["matmul_flops"] == 2 * 1024 * 512 * 512
    assert rates["launch_s"] == 1 / 200
    assert rates["bandwidth"] == 3 * 2 * 4 * 2**20
    moved = 2 * 8192 * 128 * 4 / rates["bandwidth"]
    assert rates["function_s"] == pytest.approx((1 - moved) / (8192 * 128))
    assert rates["group_s"] == pytest.approx(
        (1 - 4 * 2048 * 5 * 32 * 4 / rates["bandwidth"]) / 2048
    )
    assert rates["fresh_s"] == pytest.approx(0.75 / 2**26)


def test_a_gpu_says_that_it_was_not_measured() -> None:
    found = gpu("h100", torch.bfloat16)
    assert found is GPUS["h100"][torch.bfloat16]
    assert found.name == (
        "h100, bfloat16, from the data sheet, not measured: 60% of its 989 TFLOP/s and 80% of its "
        "3350 GB/s"
    )
    assert found.matmul_flops == pytest.approx(989e12 * PRODUCT_SHARE)
    assert found.bandwidth == pytest.approx(3350e9 * BANDWIDTH_SHARE)
    assert all("not measured" in each.name for own in GPUS.values() for each in own.values())


def test_what_the_table_has_not_is_refused() -> None:
    with pytest.raises(OptionError) as caught:
        gpu("abacus", torch.float32)
    assert str(caught.value) == (
        "machine 'abacus' is unknown; there are 'a100', 'h100', 'h200', 'jetson-orin', "
        "'jetson-thor', 'l4', 'l40s', 'rtx4090', 'rtx5090'. Leave it out for the machine this runs "
        "on."
    )
    with pytest.raises(OptionError) as caught:
        gpu("h100", torch.float64)
    assert str(caught.value) == (
        "machine 'h100': no rate is known for float64; there is bfloat16, float16, float32."
    )
