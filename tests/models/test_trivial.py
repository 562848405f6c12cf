"""Trivial predictors: they use the conditioning images only, and each does what its name says."""

from __future__ import annotations

import torch
from turbo4d.models.metrics import psnr
from turbo4d.models.scenes import render_scene
from turbo4d.models.trivial import trivial_predictions

F, V = 5, 4


def _numbered() -> tuple[torch.Tensor, torch.Tensor]:
    """Conditioning images that are one number each; view 0 at frame 0 is in both."""
    frames = torch.arange(F).float().view(F, 1, 1, 1).expand(F, 3, 2, 2) / 100
    views = torch.tensor([0.0, 50, 60, 70]).view(V, 1, 1, 1).expand(V, 3, 2, 2) / 100
    return frames, views


def test_each_is_what_its_name_says() -> None:
    found = {
        name: (images[..., 0, 0, 0] * 100).round().int().tolist()
        for name, images in trivial_predictions(*_numbered()).items()
    }
    assert found["white"] == [[100] * F] * V
    mean = round((0 + 1 + 2 + 3 + 4 + 50 + 60 + 70) / 8)
    assert found["mean_conditioning"] == [[mean] * F] * V
    assert found["mean_colour"] == [[mean] * F] * V
    assert found["same_frame"] == [[0, 1, 2, 3, 4]] * V
    assert found["same_view"] == [[0] * F, [50] * F, [60] * F, [70] * F]
    assert found["nearest"] == [
        [0, 1, 2, 3, 4],
        [50, 50, 2, 3, 4],
        [60, 60, 60, 3, 4],
        [70, 70, 2, 3, 4],
    ]


def test_mean_colour_leaves_out_the_ground() -> None:
    frames, views = torch.ones(F, 3, 2, 2), torch.ones(V, 3, 2, 2)
    frames[:, :, 0, 0] = 0.25
    views[:, :, 0, 0] = 0.25
    assert (trivial_predictions(frames, views)["mean_colour"] == 0.25).all()


def test_scenes_defeat_them() -> None:
    """The figure that nano must beat by 6 dB is a low one; see weights/README.md."""
    scene = render_scene(0)
    found = trivial_predictions(scene.images[0], scene.images[:, 0])
    assert max(psnr(images, scene.images, scene.mask) for images in found.values()) < 13.0
