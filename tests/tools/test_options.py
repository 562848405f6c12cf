"""How the values of shared options are read."""

import argparse

import pytest
from turbo4d.runtime import policy
from turbo4d.tools import options


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


def test_the_lists_are_the_compilers_own():
    from turbo4d.compiler.lower import LOWERINGS

    assert set(options.PRESETS) == set(policy.PRESETS)
    assert set(options.REGIONS) == set(policy.KINDS)
    assert {name for name, built in options.LOWERINGS.items() if built} == set(LOWERINGS)
