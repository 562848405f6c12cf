from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import CaptureError
from turbo4d.compiler.roles import find_roles

from tests.compiler.captures import exported


@pytest.mark.parametrize(
    ("name", "sample", "level", "conditioning"),
    [
        ("chain", "x", "timesteps", ["cond_view", "context", "y"]),
        ("video_unet", "sample", "timestep", ["cond['text']"]),
        ("joint_dit", "x", "t", ["text"]),
        ("multi_view", "x", "sigma", ["text"]),
    ],
)
def test_inputs_are_told_apart(name: str, sample: str, level: str, conditioning: list[str]) -> None:
    capture = exported(name)
    roles = find_roles(capture)
    assert capture.table[roles.sample].target == sample
    assert roles.level is not None
    assert capture.table[roles.level].target == level
    assert [capture.table[index].target for index in roles.conditioning] == conditioning


def test_the_stream_is_what_the_sample_reaches() -> None:
    capture = exported("multi_view")
    stream = find_roles(capture).stream
    values = {node.name: node for node in capture.module.graph.nodes}
    [result] = capture.module.graph.output_node().all_input_nodes
    assert result.name in stream
    assert "i_x" in stream
    assert not {"i_text", "i_sigma", "w_first_weight"} & stream
    for name, node in values.items():
        if node.op == "call_function":
            assert (name in stream) == any(o.name in stream for o in node.all_input_nodes)


class _Sum(nn.Module):
    def forward(self, **inputs: Tensor) -> Any:
        total = sum(inputs.values())
        return total[:, :2] if isinstance(total, Tensor) else total


def test_two_samples_are_refused() -> None:
    two = {name: torch.zeros(2, 3, 4, 4) for name in ("a", "b")}
    with pytest.raises(CaptureError) as caught:
        find_roles(capture_export(_Sum().eval(), (), two))
    assert str(caught.value) == (
        "2 inputs have the output's latent shape (2, 2, 4, 4): 'a' (2, 3, 4, 4), "
        "'b' (2, 3, 4, 4); wanted one sample."
    )


def test_no_sample_is_refused() -> None:
    capture = capture_export(nn.Flatten().eval(), (torch.zeros(2, 3, 4, 4),))
    with pytest.raises(CaptureError) as caught:
        find_roles(capture)
    assert str(caught.value) == (
        "no input has the output's latent shape (2, 48); the inputs are 'input' (2, 3, 4, 4)."
    )
