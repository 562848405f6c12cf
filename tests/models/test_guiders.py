import json
from pathlib import Path

import pytest
import torch
from turbo4d.models.guiders import (
    LinearPredictionGuider,
    RescaledGuider,
    SpatiotemporalPredictionGuider,
    TrianglePredictionGuider,
    VanillaCFG,
    combine,
    rescale,
)

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "data/golden/sampler_goldens.json").read_text("utf-8")
)


@pytest.mark.parametrize(
    ("name", "guider", "frames", "views"),
    [
        ("spatiotemporal_T5_V8_1.0_2.0", SpatiotemporalPredictionGuider(2.0), 5, 8),
        ("spatiotemporal_T5_V8_1.5_2.5", SpatiotemporalPredictionGuider(2.5, 1.5), 5, 8),
        ("spatiotemporal_T3_V4_1.0_2.0", SpatiotemporalPredictionGuider(2.0), 3, 4),
        ("spatiotemporal_T12_V4_1.5_1.5", SpatiotemporalPredictionGuider(1.5, 1.5), 12, 4),
        ("linear_48_1.0_2.0", LinearPredictionGuider(2.0), 12, 4),
    ],
)
def test_scales_equal_the_original(name, guider, frames, views):
    torch.testing.assert_close(
        guider.scale(frames, views), torch.tensor(GOLDEN[name]["scale"]), rtol=0, atol=1e-7
    )


def test_triangle_peaks_mid_orbit():
    scale = TrianglePredictionGuider(2.5).scale(1, 21)
    torch.testing.assert_close(scale, scale.flip(0))
    assert scale[[0, 5, 10]].tolist() == [1.0, 1.75, 2.5]


def test_triangle_with_half_period_has_two_peaks():
    scale = TrianglePredictionGuider(3.0, 1.0, period=0.5).scale(1, 9)
    assert scale.tolist() == [1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]


def test_vanilla_is_constant():
    assert VanillaCFG(3.0).scale(2, 2).tolist() == [3.0] * 4


@pytest.mark.parametrize(
    "guider",
    [
        LinearPredictionGuider(2.0),
        SpatiotemporalPredictionGuider(2.0),
        TrianglePredictionGuider(2.0),
        VanillaCFG(2.0),
    ],
)
def test_scales_are_computed_in_the_dtype_asked_for(guider):
    wide = guider.scale(4, 4, torch.float64)
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), guider.scale(4, 4), rtol=0, atol=2.5e-7)


def test_combine_weighs_each_image_by_its_own_scale():
    uncond, cond = torch.randn(2, 3, 4, 5, 5).unbind()
    guided = combine(uncond, cond, torch.tensor([0.0, 1.0, 2.0]))
    torch.testing.assert_close(guided[0], uncond[0])
    torch.testing.assert_close(guided[1], cond[1])
    torch.testing.assert_close(guided[2], 2 * cond[2] - uncond[2])


def test_rescale_takes_back_the_contrast_that_guidance_added():
    generator = torch.Generator().manual_seed(0)
    uncond, cond = (torch.randn(6, 4, 2, 2, generator=generator).double() for _ in range(2))
    guided = combine(uncond, cond, torch.full((6,), 7.5, dtype=torch.float64))
    assert guided.std() > 4 * cond.std()
    assert torch.equal(rescale(guided, cond, 0.0), guided)
    whole, most = (rescale(guided, cond, share) for share in (1.0, 0.7))
    torch.testing.assert_close(whole.std(), cond.std(), rtol=1e-12, atol=0)
    torch.testing.assert_close(most, 0.7 * whole + 0.3 * guided, rtol=1e-12, atol=0)


def test_a_rescaled_guider_has_the_scales_of_the_other():
    other = SpatiotemporalPredictionGuider(2.0)
    assert torch.equal(RescaledGuider(other, 0.5).scale(3, 4), other.scale(3, 4))
