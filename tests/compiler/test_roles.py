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


class _Meeting(nn.Module):
    """Two latents of one shape meet: one as it came, but for a factor; one through a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 1)
        self.first = nn.Conv2d(8, 4, 1)
        self.embed = nn.Linear(2, 4)

    def forward(self, image: Tensor, noisy: Tensor, a: Tensor, t: Tensor, rate: Tensor) -> Tensor:
        angles = torch.stack([t.cos() + rate.cos(), a.sin().mean().expand(2)], dim=-1)
        joined = torch.cat([self.stem(image), 0.5 * noisy], dim=1)
        return self.first(joined) + self.embed(angles)[:, :, None, None]


def _inputs() -> dict[str, Tensor]:
    latents = {name: torch.zeros(2, 4, 6, 6) for name in ("image", "noisy")}
    return {**latents, "a": torch.zeros(2, 5), "t": torch.zeros(2), "rate": torch.zeros(2)}


def test_a_rival_of_the_sample_or_the_level_is_taken_to_change() -> None:
    capture = capture_export(_Meeting().eval(), (), _inputs())
    roles = find_roles(capture)
    assert capture.table[roles.sample].target == "noisy"
    assert roles.level is not None
    assert capture.table[roles.level].target == "t"
    assert [capture.table[index].target for index in roles.conditioning] == ["a"]


def test_what_is_called_a_sample_is_one_where_the_graph_treats_several_alike() -> None:
    two = {name: torch.zeros(2, 3, 4, 4) for name in ("a", "latents")}
    capture = capture_export(_Sum().eval(), (), two)
    assert capture.table[find_roles(capture).sample].target == "latents"


def test_levels_that_nothing_tells_apart_are_none_of_them_conditioning() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, rate: Tensor, pace: Tensor, label: Tensor) -> Tensor:
            return x * (rate.sin() + pace.sin() + label)[:, None, None, None]

    three = {name: torch.zeros(2) for name in ("rate", "pace", "label")}
    roles = find_roles(capture_export(Two().eval(), (), {"x": torch.zeros(2, 4, 4, 4), **three}))
    assert roles.level is None
    assert roles.conditioning == ()


def test_what_takes_of_the_sample_only_its_shape_does_not_depend_on_it() -> None:
    class Shaped(nn.Module):
        def forward(self, x: Tensor, text: Tensor) -> Tensor:
            empty = x.new_zeros(2, 0, 5)
            words = torch.cat([empty, text * torch.ones_like(text)], dim=1).mean(dim=(1, 2))
            return x + words[:, None, None, None] * x.new_full((2, 1, 1, 1), 0.5)

    inputs = {"x": torch.randn(2, 4, 3, 3), "text": torch.randn(2, 7, 5)}
    capture = capture_export(Shaped().eval(), (), inputs)
    nodes = capture.module.graph.nodes
    made = [node for node in nodes if str(node.target).startswith(("aten.zeros", "aten.full"))]
    assert len(made) == 2
    assert not any(node.all_input_nodes for node in made)
    on_stream = find_roles(capture).stream
    assert not {node.name for node in made} & on_stream
    assert sum(node.op == "call_function" and node.name in on_stream for node in nodes) == 1
    [result] = capture.module(*(inputs[row.target] for row in capture.table))
    assert torch.equal(result, Shaped()(**inputs))
