from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from turbo4d.compiler.analysis import analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import GeometryError
from turbo4d.runtime.geometry import Geometry

from tests.compiler.captures import exported
from tests.compiler.foreign import Attention


def capture_without_hints(name: str):
    return dataclasses.replace(exported(name), hints={})


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("chain", Geometry(2, 2, 3, 8, 8)),
        ("multi_view", Geometry(2, 3, 2, 8, 8)),
        ("video_unet", Geometry(2, 1, 3, 8, 8)),
        ("joint_dit", Geometry(2, 1, 3, 8, 8)),
    ],
)
def test_hints_and_shapes_settle_it(name: str, wanted: Geometry) -> None:
    assert analyse(exported(name)).geometry == wanted


@pytest.mark.parametrize("given", [{"views": 2}, {"frames": 3}, {"views": 2, "frames": 3}])
def test_one_size_settles_the_other(given: dict[str, int]) -> None:
    assert analyse(capture_without_hints("chain"), given).geometry == Geometry(2, 2, 3, 8, 8)


def test_the_sizes_alone_leave_views_and_frames_open() -> None:
    with pytest.raises(GeometryError) as caught:
        analyse(capture_without_hints("chain"))
    assert str(caught.value) == (
        "geometry: the 12 images of a call may be batch=2, frames=2, views=3; "
        "batch=2, frames=3, views=2. "
        'Say which with geometry={"views": ..., "frames": ...}.'
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"views": 3, "frames": 3}, "frames=3, views=3"),
        ({"views": 4, "frames": 1}, "frames=1, views=4"),
    ],
)
def test_sizes_that_the_graph_contradicts(given: dict[str, int], said: str) -> None:
    with pytest.raises(GeometryError) as caught:
        analyse(capture_without_hints("chain"), given)
    assert str(caught.value) == (
        f"geometry: {said} does not fit the sample 'x' of 12 images, whose axis the graph cuts "
        "at multiples of 6, 2. Correct the geometry option."
    )


def test_a_size_that_is_not_the_sample_s() -> None:
    with pytest.raises(GeometryError) as caught:
        analyse(exported("chain"), {"height": 9})
    assert str(caught.value) == "geometry: height is 9; the sample has 8."


def test_an_unknown_name() -> None:
    with pytest.raises(GeometryError) as caught:
        analyse(exported("chain"), {"cameras": 2})
    assert str(caught.value) == (
        "geometry: 'cameras' is unknown; choose from batch, frames, height, order, views, width."
    )


class _Square(nn.Module):
    """Attention over the outer, then over the inner of two axes of one size in the image axis."""

    def __init__(self) -> None:
        super().__init__()
        self.outer = Attention(4)
        self.inner = Attention(4)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.flatten(1).view(2, 3, 3, 4)
        grid = grid + self.outer(grid.transpose(1, 2).reshape(6, 3, 4)).view(grid.shape)
        grid = grid + self.inner(grid.reshape(6, 3, 4)).view(grid.shape)
        return grid.view(x.shape)


def test_equal_sizes_leave_the_order_open_until_it_is_given() -> None:
    capture = capture_export(_Square().eval(), (torch.zeros(18, 4, 1, 1),))
    with pytest.raises(GeometryError) as caught:
        analyse(capture)
    assert str(caught.value) == (
        "geometry: 18 images of 3 frames and 3 views may lie in the order (batch, frames, views) "
        "or (batch, views, frames); the graph fits both. "
        'Say which with geometry={"order": "BFV"} or {"order": "BVF"}.'
    )
    for order, kinds in (("BFV", ["motion", "camera"]), ("BVF", ["camera", "motion"])):
        found = analyse(capture, {"order": order})
        assert found.geometry == Geometry(2, 3, 3, 1, 1)
        assert [site.kind for site in found.sites] == kinds


def test_an_unknown_order() -> None:
    with pytest.raises(GeometryError) as caught:
        analyse(exported("chain"), {"order": "FVB"})
    assert str(caught.value) == (
        "geometry: order is 'FVB'; wanted 'BFV' or 'BVF', the letters of the image axis, "
        "outermost first."
    )


class _Row(nn.Module):
    """A video of one branch: attention over all images."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(4)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        pixels = x.flatten(2).permute(2, 0, 1)
        pixels = pixels + self.attention(pixels) + text.mean()
        return pixels.permute(1, 2, 0).reshape(x.shape)


def test_images_that_attend_to_each_other_are_of_one_branch() -> None:
    capture = capture_export(_Row().eval(), (torch.zeros(6, 4, 2, 2), torch.zeros(1, 5, 4)))
    analysis = analyse(capture)
    assert analysis.geometry == Geometry(1, 1, 6, 2, 2)
    assert [site.kind for site in analysis.sites] == ["motion"]


@pytest.mark.parametrize("frames_first", [True, False])
def test_frames_are_told_behind_what_is_joined_to_the_sample(frames_first: bool) -> None:
    class Joined(nn.Module):
        """Conditioning lies beside the sample's channels before each image is looked at."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(8, 4, 1)
            self.attention = Attention(4)

        def forward(self, x: Tensor, image: Tensor, text: Tensor) -> Tensor:
            joined = torch.cat([0.5 * x, image], dim=2 if frames_first else 1)
            images = joined if frames_first else joined.transpose(1, 2)
            hidden = self.first(images.reshape(6, 8, 4, 4))
            tokens = hidden.flatten(2).transpose(1, 2) + text.mean()
            hidden = (tokens + self.attention(tokens)).transpose(1, 2).reshape(2, 3, 4, 4, 4)
            return hidden if frames_first else hidden.transpose(1, 2)

    shape = (2, 3, 4, 4, 4) if frames_first else (2, 4, 3, 4, 4)
    inputs = {"x": torch.zeros(shape), "image": torch.zeros(shape).transpose(-1, -2)}
    call = {**inputs, "text": torch.zeros(2, 5, 4)}
    analysis = analyse(capture_export(Joined().eval(), (), call))
    assert analysis.geometry == Geometry(2, 1, 3, 4, 4)
    assert [site.kind for site in analysis.sites] == ["spatial"]


@pytest.mark.parametrize("size", ["dynamic", -1, 0, None, torch.export.Dim("views")])
def test_a_size_that_is_no_number(size: Any) -> None:
    with pytest.raises(GeometryError) as caught:
        analyse(exported("chain"), {"views": size})
    assert str(caught.value) == (
        f"geometry: views is {size!r}; wanted a whole number of at least 1, or leave it out to "
        "have it inferred."
    )
