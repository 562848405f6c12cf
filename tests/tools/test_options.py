"""How the values of shared options are read."""

import argparse

import pytest
import torch
from turbo4d.runtime import policy
from turbo4d.tools import options
from turbo4d.tools.device import choose_device
from turbo4d.tools.failures import CallError
from turbo4d.tools.load_model import load_model
from turbo4d.tools.parser import whole_number


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("3", (3,)), ("0,2,5", (0, 2, 5)), ("0-4", (0, 1, 2, 3, 4)), ("7,1-2", (7, 1, 2))],
)
def test_scene_numbers(text, numbers):
    assert options.scene_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "-1", "2-1", "1,1", "0-2,1", "1.5"])
def test_scene_numbers_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="wanted scene numbers from 0"):
        options.scene_numbers(text)


@pytest.mark.parametrize("text", ["0-99999999999", "0-1000", "5,7-1006"])
def test_more_scenes_than_anyone_samples(text):
    with pytest.raises(argparse.ArgumentTypeError, match="wanted 1000 scenes at most"):
        options.scene_numbers(text)


@pytest.mark.parametrize("name", ["cpu:0", "cpu:x", "cpu:", "cuda:x", "cuda:", "gpu", "", "meta"])
def test_a_device_that_is_none(name):
    with pytest.raises(CallError) as refused:
        choose_device(name)
    wanted = f"--device {name!r} is unknown; choose 'auto', 'cpu' or 'cuda'."
    assert str(refused.value) == wanted


def test_a_device_beyond_those_that_are_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(CallError, match=r"^--device 'cuda:2' is not there: torch sees 2 CUDA"):
        choose_device("cuda:2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "got '0', wanted a whole number from 1"),
        ("1.5", "got '1.5', wanted a whole number from 1"),
        ("10001", "got '10001', wanted a whole number from 1 to 10000"),
        ("9" * 5000, f"got '{'9' * 40}...', wanted a whole number from 1 to 10000"),
    ],
)
def test_a_number_out_of_its_range(text, said):
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        whole_number(1, options.MOST_STEPS)(text)
    assert str(refused.value) == said


def test_the_lists_are_the_compilers_own():
    from turbo4d.compiler.lower import LOWERINGS

    assert set(options.PRESETS) == set(policy.PRESETS)
    assert set(options.REGIONS) == set(policy.KINDS)
    assert {name for name, built in options.LOWERINGS.items() if built} == set(LOWERINGS)


def test_lowering_auto_is_the_backends_own_and_its_uncached_side_the_module():
    from turbo4d.tools.sampling import lowered

    given = argparse.Namespace(plan="balanced", lowering="auto", regions=None)
    options.check_plan(given)
    assert given.lowering == "auto"
    model = load_model("tiny", None, torch.float32, torch.device("cpu"))
    assert lowered(model, "auto") is model
