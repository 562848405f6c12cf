"""Scenes: the same seed gives the same scene, splits never meet, views and motion are real."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from turbo4d.models.creature import COLOURS, draw_creature, pose
from turbo4d.models.render import camera_axes, render_ellipsoids
from turbo4d.models.scenes import ENTROPY, SPLITS, render_scene, scene_rng

MEANS = (0.816228, 0.847343, 0.847026)  # of scene 0 at 32 x 32: red, green, blue
COVERAGE = 0.270752


def test_scene_is_deterministic_and_in_range() -> None:
    first, second = render_scene(3), render_scene(3)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.mask, second.mask)
    assert first.images.shape == (4, 5, 3, 64, 64)
    assert first.mask.shape == (4, 5, 1, 64, 64)
    assert first.images.min() >= 0
    assert first.images.max() <= 1


def test_scene_keeps_its_numbers() -> None:
    """Frozen with the weights: another draw or another shading would be another data set."""
    scene = render_scene(0, size=32)
    means = scene.images.double().mean((0, 1, 3, 4))
    torch.testing.assert_close(means, torch.tensor(MEANS, dtype=torch.float64), atol=1e-4, rtol=0)
    assert scene.coverage == pytest.approx(COVERAGE, abs=1e-3)


@pytest.mark.parametrize("split", sorted(SPLITS))
def test_object_covers_a_fifth_of_every_image(split: str) -> None:
    for index in range(8):
        mask = render_scene(index, split).mask
        assert mask.mean((2, 3, 4)).min() >= 0.2
        assert mask.mean() >= 0.23


def test_splits_draw_from_different_streams() -> None:
    drawn = {
        (split, index): tuple(scene_rng(index, split).integers(0, 2**63, 4))
        for split in SPLITS
        for index in range(200)
    }
    assert len(set(drawn.values())) == len(drawn)


def test_splits_are_keyed_apart() -> None:
    for split, number in SPLITS.items():
        keyed = np.random.SeedSequence(ENTROPY, spawn_key=(number, 7))
        expected = np.random.Generator(np.random.PCG64(keyed))
        assert scene_rng(7, split).integers(2**63) == expected.integers(2**63)


def test_views_and_frames_differ() -> None:
    images = render_scene(1).images
    for view in range(1, 4):
        assert (images[view] - images[0]).abs().mean() > 0.03
    for frame in range(1, 5):
        assert (images[:, frame] - images[:, 0]).abs().mean((1, 2, 3)).min() > 0.02


def test_mask_is_where_the_ground_is_not() -> None:
    scene = render_scene(2)
    outside = scene.images[(scene.mask == 0).expand_as(scene.images)]
    inside = scene.images.amin(2, keepdim=True)[scene.mask == 1]
    assert outside.mean() > 0.98
    assert (inside < 0.95).double().mean() > 0.99


def test_scenes_of_other_sizes_show_the_same_thing() -> None:
    large = render_scene(0, size=64).images
    small = render_scene(0, size=32).images
    pooled = torch.nn.functional.avg_pool2d(large.flatten(0, 1), 2).view_as(small)
    assert (pooled - small).abs().mean() < 0.01


def test_arms_move_by_articulation() -> None:
    """Relative to the torso, not with it."""
    centres, axes = pose(draw_creature(scene_rng(0, "train")), 5)
    torso_inverse = np.linalg.inv(axes[:, 0])
    hand = np.einsum("fij,fj->fi", torso_inverse, centres[:, 2] - centres[:, 0])
    assert np.ptp(hand[:, 1]) > 0.2


def test_motion_has_the_period_of_the_frames() -> None:
    creature = draw_creature(scene_rng(0, "train"))
    coarse, fine = pose(creature, 5), pose(creature, 10)
    for one, other in zip(coarse, fine, strict=True):
        np.testing.assert_allclose(one, other[::2], atol=1e-12)


def test_renderer_draws_a_sphere_where_it_is() -> None:
    """An independent reference: a sphere's silhouette is a disc of its radius at its centre."""
    centre = torch.tensor([[[0.3, 0.0, 0.0]]], dtype=torch.float64)
    axes = (0.4 * torch.eye(3, dtype=torch.float64))[None, None]
    colours = torch.zeros(len(COLOURS), 3, dtype=torch.float64)
    azimuth = torch.tensor([0.0, torch.pi], dtype=torch.float64)
    images, coverage = render_ellipsoids(centre, axes, colours, 0.0, azimuth, size=64)
    grid = (torch.arange(64, dtype=torch.float64) + 0.5) / 32 - 1
    for view, side in ((0, 0.3), (1, -0.3)):
        disc = (grid[None] - side) ** 2 + grid[:, None] ** 2 < 0.16
        assert ((coverage[view, 0, 0] > 0.5) == disc).double().mean() > 0.99
    assert images[coverage.expand_as(images) == 0].min() == 1
    assert images[coverage.expand_as(images) == 1].max() == 0


def test_camera_axes_are_rotations() -> None:
    axes = camera_axes(torch.linspace(0, 6, 7, dtype=torch.float64))
    torch.testing.assert_close(
        axes @ axes.mT, torch.eye(3, dtype=torch.float64).expand(7, 3, 3), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(
        torch.linalg.det(axes), torch.ones(7, dtype=torch.float64), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize(
    ("index", "split", "message"),
    [
        (
            0,
            "test",
            "scenes: split 'test' is unknown; choose one of ['held_out', 'train', 'validation']",
        ),
        (-1, "train", "scenes: scene index -1 is negative; use 0 or above"),
    ],
)
def test_what_is_refused(index: int, split: str, message: str) -> None:
    with pytest.raises(ValueError, match="scenes: ") as caught:
        render_scene(index, split)
    assert str(caught.value) == message
