import pytest
from turbo4d.runtime.errors import OptionError
from turbo4d.runtime.geometry import Geometry

SIZES = {"batch": 2, "views": 8, "frames": 5, "height": 72, "width": 72}


def test_a_mapping_round_trips():
    assert Geometry.from_mapping(SIZES).as_dict() == SIZES
    assert str(Geometry(**SIZES)) == "batch 2, views 8, frames 5, height 72, width 72"


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({}, "geometry: got nothing; wanted batch, frames, height, views, width."),
        (
            {**SIZES, "depth": 1},
            "geometry: got batch, depth, frames, height, views, width; "
            "wanted batch, frames, height, views, width.",
        ),
        ({**SIZES, "views": 0}, "geometry: views is 0; wanted an integer above 0."),
        ({**SIZES, "views": True}, "geometry: views is True; wanted an integer above 0."),
        ({**SIZES, "views": 4.0}, "geometry: views is 4.0; wanted an integer above 0."),
    ],
)
def test_other_sizes_are_refused(sizes, text):
    with pytest.raises(OptionError) as caught:
        Geometry.from_mapping(sizes)
    assert str(caught.value) == text
