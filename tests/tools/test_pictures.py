"""The factor of a difference, the order of an animation, and labels that stay out of the images."""

import numpy as np
import pytest
import torch
from PIL import Image
from turbo4d.tools import pictures


@pytest.mark.parametrize(
    ("peak", "factor"), [(1.0, 1), (0.5, 2), (0.06, 10), (0.0004, 1000), (0.0, 1000)]
)
def test_the_factor_is_the_largest_that_does_not_clip(peak, factor):
    assert pictures.difference_factor(torch.tensor([0.0, peak])) == factor


def test_an_animation_runs_forth_and_back():
    assert pictures.loop_order(5) == [0, 1, 2, 3, 4, 3, 2, 1]
    assert pictures.loop_order(2) == [0, 1]
    assert pictures.loop_order(1) == [0]


def test_every_tile_shows_its_image(tmp_path):
    images = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pictures.write_sheet(tmp_path / "sheet.png", images, "title")
    scale = pictures.enlargement(8)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == pictures.sheet_size(2, 3, 8, 8)
        pixels = np.asarray(sheet)
    for view in range(2):
        for frame in range(3):
            left = pictures.MARGIN_PX + frame * (8 * scale + pictures.GAP_PX)
            top = 2 * pictures.HEADER_PX + view * (8 * scale + pictures.GAP_PX)
            tile = pixels[top : top + 8 * scale : scale, left : left + 8 * scale : scale]
            wanted = (images[view, frame] * 255).round().byte().permute(1, 2, 0).numpy()
            assert (tile == wanted).all()


def test_the_difference_is_brightened_by_the_factor(tmp_path):
    baseline = torch.full((1, 1, 3, 16, 16), 0.5)
    turbo = baseline + 0.04
    assert pictures.write_difference(tmp_path / "d.png", turbo, baseline) == 20
    with Image.open(tmp_path / "d.png") as sheet:
        colour = sheet.getpixel((pictures.MARGIN_PX + 40, 2 * pictures.HEADER_PX + 40))
    assert colour == (204, 204, 204)
