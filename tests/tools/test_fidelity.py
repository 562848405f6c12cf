"""Figures that JSON can hold, and None where nothing was measured."""

import dataclasses

import pytest
import torch
from turbo4d.models.metrics import psnr
from turbo4d.tools.failures import JobError
from turbo4d.tools.fidelity import (
    object_mask,
    of_trivial,
    refuse_nonfinite,
    to_reference,
    to_truth,
)
from turbo4d.tools.scene_input import held_out_scene


@pytest.fixture(scope="module")
def scene():
    return held_out_scene(0, views=2, frames=2, size=32)


def test_equal_images_reach_the_ceiling(scene):
    found = to_reference(scene.truth, scene.truth, scene.mask)
    assert found == {
        "psnr_db": 200.0,
        "psnr_mask_db": 200.0,
        "ssim": pytest.approx(1.0),
        "psnr_min_view_db": 200.0,
    }


def test_the_worst_view_is_the_one_that_was_spoilt(scene):
    sample = scene.truth.clone()
    sample[1] = (sample[1] - 0.1).clamp(0, 1)
    found = to_reference(sample, scene.truth, scene.mask)
    assert found["psnr_min_view_db"] == pytest.approx(psnr(sample[1], scene.truth[1]))
    assert found["psnr_min_view_db"] < found["psnr_db"] < 200.0


def test_without_a_truth_there_is_no_figure(scene):
    blind = dataclasses.replace(scene, truth=None, mask=None)
    assert to_truth(scene.truth, blind) == {"gt_psnr_db": None, "gt_psnr_mask_db": None}
    assert to_truth(scene.truth, None) == {"gt_psnr_db": None, "gt_psnr_mask_db": None}
    assert of_trivial(blind) == of_trivial(None) == {}


def test_trivial_predictors_are_judged_like_samples(scene):
    found = of_trivial(scene)
    assert {"white", "mean_colour", "mean_conditioning"} <= set(found)
    white = to_truth(torch.ones_like(scene.truth), scene)
    assert found["white"] == white


def test_a_folder_takes_its_mask_from_the_sample(scene):
    blind = dataclasses.replace(scene, truth=None, mask=None)
    found = object_mask(blind, scene.truth)
    assert found.shape == scene.mask.shape
    assert (found >= scene.mask).all()  # it has the half-covered pixels of the outline too
    assert found.sum() < 1.3 * scene.mask.sum()
    assert object_mask(scene, torch.ones_like(scene.truth)) is scene.mask


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sample_that_holds_nan_has_no_figure(bad):
    latent = torch.zeros(2, 4, 8, 8)
    refuse_nonfinite(latent)
    latent[1, 2, 3, 4] = bad
    with pytest.raises(JobError) as refused:
        refuse_nonfinite(latent, "the sample of scene 3")
    assert str(refused.value) == (
        "the sample of scene 3 holds NaN or infinity, so nothing can be shown or said of it; see "
        "that the weights are finite, and try --dtype fp32."
    )
