"""Colours that mean different things differ for colour-blind readers too."""

from itertools import combinations

import numpy as np
import pytest
from turbo4d.tools.calibration.page_series import COLOURS, DARK_COLOURS
from turbo4d.tools.plan_picture import DARK_MARKS, MARKS

# What is left of linear RGB for eyes without one kind of cone: Machado, Oliveira and Fernandes,
# "A physiologically-based model for simulation of color vision deficiency" (2009), severity 1.
EYES = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])
# Cells of a plan that nothing is done in: their difference matters least.
PLAIN = {"inside", "idle"}


def lab(colour, eyes):
    """CIE L*a*b* of a colour as these eyes see it."""
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(EYES[eyes] @ linear, 0, 1) / WHITE
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize(
    "colours",
    [
        pytest.param(dict(enumerate(COLOURS)), id="series"),
        pytest.param(dict(enumerate(DARK_COLOURS)), id="series, dark"),
        pytest.param({cell: colour for cell, (colour, _) in MARKS.items()}, id="plan"),
        pytest.param(dict(DARK_MARKS), id="plan, dark"),
    ],
)
def test_any_two_colours_differ(colours, eyes):
    for one, two in combinations(colours, 2):
        if {one, two} != PLAIN:
            apart = np.linalg.norm(lab(colours[one], eyes) - lab(colours[two], eyes))
            assert apart > 10, (one, two, apart)
