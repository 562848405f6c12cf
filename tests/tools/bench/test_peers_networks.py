"""The networks of suite `peers` come in two sizes, described once."""

from typing import Any

import pytest
from turbo4d.tools.bench.peers.networks import network
from turbo4d.tools.load_model import make

pytest.importorskip("diffusers")


def test_a_size_is_a_column_of_one_table():
    tiny: Any = network("latte", "tiny")
    mid: Any = network("latte", "mid")
    assert (tiny.config.num_layers, mid.config.num_layers) == (3, 8)
    assert {*tiny.config} == {*mid.config}
    with pytest.raises(KeyError):
        network("modelscope", "mid")


def test_one_of_middle_size_is_found_by_its_name():
    found: Any = make("turbo4d.tools.bench.peers.networks:latte")
    assert found.config.num_layers == 8
    assert found.turbo4d_inputs()[1]["hidden_states"].shape == (2, 4, 5, 16, 16)
