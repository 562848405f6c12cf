"""The reference that engines are held against: how it is recorded, stored and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from turbo4d.compiler.bundle.recording import record
from turbo4d.compiler.bundle.reference import INSIDE, STEM, read_reference, reference_bytes
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.errors import Turbo4DError

from tests.compiler.bundle.networks import SIGMAS, network, parts


def recorded(run: Any = None) -> Any:
    module, call = network()
    found = parts()
    return record(module, found.analysis, found.plan, found.made, found.prologue, (), call, run)


def test_a_reference_is_what_its_file_says(tmp_path: Path) -> None:
    reference = recorded()
    path = tmp_path / "reference.safetensors"
    path.write_bytes(reference_bytes(reference))
    read = read_reference(path)
    assert {*read.calls} == {"prologue", *(row.key.name for row in parts().variants)}
    assert [(step.stream, step.step) for step in read.steps] == [
        ("main", at) for at in range(len(SIGMAS))
    ]
    for name, call in reference.calls.items():
        again = read.calls[name]
        assert [n for n, _ in again.slots_in] == [n for n, _ in call.slots_in]
        torch.testing.assert_close(again.outputs, call.outputs, rtol=0, atol=0)
        assert {*again.inside} == {*call.inside}
        assert all(value.shape == (INSIDE,) for value in again.inside.values())


def test_each_content_is_stored_once(tmp_path: Path) -> None:
    reference = recorded()
    path = tmp_path / "reference.safetensors"
    path.write_bytes(reference_bytes(reference))
    # Every step of this run has the same inputs.
    held = path.stat().st_size
    one = sum(v.numel() * v.element_size() for v in reference.steps[0].inputs.values())
    assert held < len(SIGMAS) * one + sum(
        v.numel() * v.element_size()
        for call in reference.calls.values()
        for v in (*call.outputs, *(s for _, s in call.slots_out), *call.inside.values())
    ) + 2 * one + (1 << 16)


def test_a_run_is_recorded_as_it_goes() -> None:
    _, call = network()

    def run(denoiser: Any) -> torch.Tensor:
        x = call["x"]
        for step in range(len(SIGMAS)):
            denoiser.step(step)
            x = x + 0.1 * denoiser(**{**call, "x": x})[:, : x.shape[1]].mean()
        return x

    reference = recorded(run)
    first, last = reference.steps[0].inputs["x"], reference.steps[-1].inputs["x"]
    assert not torch.equal(first, last)
    assert reference.result is not None
    assert reference.result.shape == call["x"].shape


def test_a_run_that_stops_early_is_refused() -> None:
    _, call = network()
    with pytest.raises(
        LowerError,
        match=r"^build: the run did not call the module at step 2 of stream 'main'; it must call "
        r"it once at each of the plan's 8 steps\.$",
    ):
        recorded(lambda denoiser: [denoiser(**call) for _ in range(2)])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"nothing", "holds no reference"),
        (save({"a": torch.zeros(1)}), "holds no reference"),
        (save({"a": torch.zeros(1)}, {STEM: json.dumps({"schema_version": 9})}), "version 9"),
        (save({"a": torch.zeros(1)}, {STEM: "[]"}), "holds no reference"),
    ],
)
def test_what_is_no_reference_is_refused(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    path.write_bytes(data)
    with pytest.raises(Turbo4DError, match=said):
        read_reference(path)
