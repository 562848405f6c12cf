"""A sample of tokens: what they are made of, as it is said or as the network's positions count."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import GeometryError

C, FRAMES, HEIGHT, WIDTH = 8, 3, 2, 4
TOKENS = FRAMES * HEIGHT * WIDTH
UNTOLD = "its tokens may lie in frames: geometry={'frames': ..., 'height': ..., 'width': ...} says"


class Tokens(nn.Module):
    """One attention over tokens that are given as such; queries and keys are rotated.

    Args:
        sides: whose positions are counted; none for positions that come as a table.
    """

    def __init__(self, *sides: int) -> None:
        super().__init__()
        self.first, self.qkv, self.last = nn.Linear(4, C), nn.Linear(C, 3 * C), nn.Linear(C, 4)
        self.sides = sides
        self.table = nn.Parameter(torch.ones(TOKENS, C // 2))

    def angles(self) -> Tensor:
        if not self.sides:
            return self.table
        counts = [torch.arange(side, dtype=torch.float32) for side in self.sides]
        grid = torch.stack(torch.meshgrid(*counts, indexing="ij"), dim=-1).flatten(0, -2)
        return (grid[..., None] * torch.ones(C // 2)).sum(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        tokens, angles = self.first(x), self.angles()
        cos, sin = angles.cos(), angles.sin()
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)

        def turned(y: Tensor) -> Tensor:
            left, right = y.chunk(2, dim=-1)
            return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)

        q, k, v = (part[:, None] for part in (turned(q), turned(k), v))
        return self.last(tokens + F.scaled_dot_product_attention(q, k, v)[:, 0])


def found(net: nn.Module, geometry: dict[str, int] | None = None) -> Analysis:
    return analyse(capture_export(net.eval(), (torch.zeros(2, TOKENS, 4),)), geometry)


def site(analysis: Analysis) -> tuple[str, str]:
    [one] = analysis.sites
    return one.kind, one.note


def test_positions_over_three_axes_are_a_videos() -> None:
    analysis = found(Tokens(FRAMES, HEIGHT, WIDTH))
    assert site(analysis) == ("joint", "over F H W")
    assert analysis.geometry.as_dict() == {
        "batch": 2, "views": 1, "frames": FRAMES, "height": HEIGHT, "width": WIDTH,
    }  # fmt: skip


def test_positions_over_two_axes_are_an_images() -> None:
    analysis = found(Tokens(FRAMES * HEIGHT, WIDTH))
    assert site(analysis) == ("spatial", "")
    assert analysis.geometry.frames == 1


def test_what_is_said_wins() -> None:
    said = {"frames": 2, "height": 4, "width": 3}
    analysis = found(Tokens(FRAMES, HEIGHT, WIDTH), said)
    assert site(analysis) == ("joint", "over F H W")
    assert {name: analysis.geometry.as_dict()[name] for name in said} == said


def test_tokens_that_nothing_tells_of_say_so() -> None:
    for net in (Tokens(), Tokens(TOKENS)):
        analysis = found(net)
        assert site(analysis) == ("spatial", UNTOLD)
        assert (analysis.geometry.height, analysis.geometry.width) == (TOKENS, 1)
    assert site(found(Tokens(), {"frames": 3, "height": 2, "width": 4}))[0] == "joint"


def test_sizes_that_do_not_fit_the_tokens_are_refused() -> None:
    with pytest.raises(GeometryError) as caught:
        found(Tokens(), {"frames": 3, "height": 3, "width": 4})
    assert str(caught.value) == f"geometry: height is 3; the sample has {TOKENS}."
