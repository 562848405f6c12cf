"""The relative error, by our own numbers and by Polygraphy's."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from turbo4d.compiler.bundle import comparison
from turbo4d.compiler.bundle.comparison import Difference, difference, differences

FAR = Difference(math.inf, math.inf)


def test_it_is_the_norm_of_the_error_over_that_of_what_was_wanted() -> None:
    wanted = torch.tensor([3.0, 4.0])
    found = difference(wanted + torch.tensor([0.0, 0.5]), wanted)
    assert found.relative == pytest.approx(0.1)
    assert found.largest == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("got", "wanted", "found"),
    [
        (torch.zeros(2), torch.zeros(2), Difference(0.0, 0.0)),
        (torch.zeros(0), torch.zeros(0), Difference(0.0, 0.0)),
        (torch.ones(1), torch.zeros(1), Difference(math.inf, 1.0)),
        (torch.ones(2), torch.ones(3), FAR),
        (torch.ones(2).half(), torch.ones(2), FAR),
        (torch.tensor([math.nan]), torch.ones(1), FAR),
        (torch.ones(1), torch.tensor([math.inf]), FAR),
        (torch.tensor([math.inf]), torch.tensor([math.inf]), FAR),
    ],
)
def test_what_cannot_be_compared_is_infinitely_far(got: Any, wanted: Any, found: Any) -> None:
    assert difference(got, wanted) == found
    assert differences({"a": got}, {"a": wanted}, {})[0] == {"a": found}


@pytest.mark.parametrize("library", ["polygraphy", "turbo4d"])
@pytest.mark.parametrize("wanted", [torch.tensor([3.0, 4.0]), torch.zeros(2)])
def test_a_difference_is_measured_against_what_it_was_taken_from(
    wanted: torch.Tensor, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library == "polygraphy":
        pytest.importorskip("polygraphy", reason="polygraphy is not installed")
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    sides = {"slot": wanted + torch.tensor([0.0, 0.5])}, {"slot": wanted}
    found, by = differences(*sides, {"slot": 50.0})
    assert by.startswith(library if found["slot"].relative and wanted.any() else "")
    assert found["slot"].relative == pytest.approx(0.01)
    smaller = differences(*sides, {"slot": 0.5})[0]["slot"].relative
    assert smaller == pytest.approx(0.1 if wanted.any() else 1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_polygraphy_gives_the_same_numbers(seed: int, dtype: torch.dtype) -> None:
    pytest.importorskip("polygraphy", reason="polygraphy is not installed")
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.randn(40, generator=generator).to(dtype)
    got = (wanted.float() + 1e-2 * torch.randn(40, generator=generator)).to(dtype)
    found, by = differences({"a": got}, {"a": wanted}, {})
    assert by.startswith("polygraphy ")
    assert found["a"].relative == pytest.approx(difference(got, wanted).relative, rel=1e-9)


def test_polygraphy_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("polygraphy", reason="polygraphy is not installed")
    differences({"a": torch.ones(2)}, {"a": torch.zeros(2) + 0.5}, {})
    assert capfd.readouterr() == ("", "")


def test_without_polygraphy_the_numbers_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found, by = comparison.differences({"a": torch.ones(1)}, {"a": torch.ones(1) * 2}, {})
    assert (by, found["a"].relative) == ("turbo4d", 0.5)
