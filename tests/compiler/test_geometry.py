from __future__ import annotations

import dataclasses

import pytest
from turbo4d.compiler.analysis import analyse
from turbo4d.compiler.errors import GeometryError
from turbo4d.runtime.geometry import Geometry

from tests.compiler.captures import exported


def capture_without_hints(name: str):
    return dataclasses.replace(exported(name), hints={})


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("sv4d_small", Geometry(2, 2, 3, 8, 8)),
        ("multi_view", Geometry(2, 3, 2, 8, 8)),
        ("video_unet", Geometry(2, 1, 3, 8, 8)),
        ("joint_dit", Geometry(2, 1, 3, 8, 8)),
    ],
)
def test_hints_and_shapes_settle_it(name: str, wanted: Geometry) -> None:
    assert analyse(exported(name)).geometry == wanted


@pytest.mark.parametrize("given", [{"views": 2}, {"frames": 3}, {"views": 2, "frames": 3}])
def test_one_size_settles_the_other(given: dict[str, int]) -> None:
    assert analyse(capture_without_hints("sv4d_small"), given).geometry == Geometry(2, 2, 3, 8, 8)


def test_the_sizes_alone_leave_views_and_frames_open() -> None:
    with pytest.raises(GeometryError) as caught:
        analyse(capture_without_hints("sv4d_small"))
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
        analyse(capture_without_hints("sv4d_small"), given)
    assert str(caught.value) == (
        f"geometry: {said} does not fit the sample 'x' of 12 images, whose axis the graph cuts "
        "at multiples of 6, 2. Correct the geometry option."
    )


def test_a_size_that_is_not_the_sample_s() -> None:
    with pytest.raises(GeometryError) as caught:
        analyse(exported("sv4d_small"), {"height": 9})
    assert str(caught.value) == "geometry: height is 9; the sample has 8."


def test_an_unknown_name() -> None:
    with pytest.raises(GeometryError) as caught:
        analyse(exported("sv4d_small"), {"cameras": 2})
    assert str(caught.value) == (
        "geometry: 'cameras' is unknown; choose from batch, frames, height, views, width."
    )
