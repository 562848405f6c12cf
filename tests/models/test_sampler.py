import itertools
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from turbo4d.models.branches import KEYS, Branches
from turbo4d.models.config import SV4DConfig
from turbo4d.models.guiders import RescaledGuider, SpatiotemporalPredictionGuider, VanillaCFG
from turbo4d.models.random_weights import fill_random
from turbo4d.models.sampler import (
    guided_denoiser,
    sample_dpmpp_2m,
    sample_euler,
    sequential_denoiser,
)
from turbo4d.models.schedule import edm_sigmas, v_scaling
from turbo4d.models.unet import SV4DUNet

GOLDEN = Path(__file__).parents[1] / "data/golden/sampler_sv4d_tiny_euler3.safetensors"
SAMPLERS = [sample_euler, sample_dpmpp_2m]
MEAN, SPREAD = 0.3, 0.5


@pytest.fixture(scope="module")
def unet():
    module = SV4DUNet(SV4DConfig.named("tiny")).eval()
    fill_random(module)
    return module


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def golden_branches(golden, dtype):
    c, uc = ({key: golden[f"{name}.{key}"] for key in KEYS} for name in ("c", "uc"))
    return Branches(c, uc, frames=3, views=4).to(dtype=dtype)


def run_golden(unet, golden, model_dtype, state_dtype, on_step=None):
    sigmas = edm_sigmas(3, dtype=state_dtype)
    denoiser = guided_denoiser(
        unet.to(model_dtype),
        golden_branches(golden, model_dtype),
        SpatiotemporalPredictionGuider(2.0),
        sigmas,
    )
    return sample_euler(denoiser, golden["noise"].to(state_dtype), sigmas, on_step=on_step)


def test_euler_run_equals_the_original(unet, golden):
    def compare(i, x, denoised):
        wanted = golden[f"x_after_step{i}"]
        assert (x - wanted).norm() / wanted.norm() < 1e-5
        torch.testing.assert_close(denoised, golden[f"denoised_step{i}"], rtol=0, atol=2e-4)

    final = run_golden(unet, golden, torch.float32, torch.float32, compare)
    torch.testing.assert_close(final, golden["final"], rtol=0, atol=2e-4)


def test_euler_run_in_float64_equals_the_original(unet, golden):
    final = run_golden(unet, golden, torch.float64, torch.float64)
    torch.testing.assert_close(final, golden["final_fp64"], rtol=0, atol=1e-9)


def test_a_bfloat16_model_keeps_a_float32_latent(unet, golden):
    final = run_golden(unet, golden, torch.bfloat16, torch.float32)
    assert final.dtype == torch.float32
    assert (final - golden["final"]).norm() / golden["final"].norm() < 0.05


def test_only_the_model_rounds_to_bfloat16():
    sigmas, x = edm_sigmas(4), 70 * torch.randn(4, 4, 8, 8)
    branches = branches_like().to(dtype=torch.bfloat16)
    predicted = torch.randn(8, 4, 8, 8, dtype=torch.bfloat16)

    def model(fed, labels, **inputs):
        assert (fed.dtype, labels.dtype) == (torch.bfloat16, torch.float32)
        assert {inputs[name].dtype for name in ("context", "y", "cond_view")} == {torch.bfloat16}
        return predicted

    denoised = guided_denoiser(model, branches, VanillaCFG(1.0), sigmas)(x, 2)
    scaling = v_scaling(sigmas[2])
    wanted = predicted[4:].float() * scaling.c_out + x * scaling.c_skip
    torch.testing.assert_close(denoised, wanted, rtol=0, atol=1e-5)


def gaussian_denoiser(sigmas):
    """Best prediction of normal data of mean MEAN and deviation SPREAD, known in closed form."""

    def denoiser(x, i):
        keep = SPREAD**2 / (SPREAD**2 + sigmas[i] ** 2)
        return MEAN + keep * (x - MEAN)

    return denoiser


def gaussian_solution(noise, sigmas):
    start, end = (SPREAD**2 + sigmas[[0, -1]] ** 2).sqrt()
    return MEAN + (noise * (1 + sigmas[0] ** 2).sqrt() - MEAN) * end / start


@pytest.mark.parametrize(("sampler", "order"), [(sample_euler, 1), (sample_dpmpp_2m, 2)])
def test_order_of_convergence(sampler, order):
    noise = torch.linspace(-2, 2, 64, dtype=torch.float64).view(1, 4, 4, 4)
    errors = []
    for steps in (64, 128, 256):
        sigmas = torch.logspace(1, -1, steps + 1, dtype=torch.float64)
        sample = sampler(gaussian_denoiser(sigmas), noise, sigmas)
        errors.append((sample - gaussian_solution(noise, sigmas)).abs().max().item())
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_the_second_order_control_beats_euler_on_the_sampling_schedule():
    noise = torch.linspace(-2, 2, 64, dtype=torch.float64).view(1, 4, 4, 4)
    sigmas = edm_sigmas(40, dtype=torch.float64)
    wanted = gaussian_solution(noise, sigmas)
    euler, second = (
        (sampler(gaussian_denoiser(sigmas), noise, sigmas) - wanted).abs().max()
        for sampler in SAMPLERS
    )
    assert second < 0.3 * euler


def test_dpmpp_2m_equals_its_paper_in_log_steps():
    """The update written per step in lambda = -ln(sigma), as the paper has it."""
    sigmas = edm_sigmas(6, dtype=torch.float64)
    noise = torch.linspace(-2, 2, 4, dtype=torch.float64).view(1, 4, 1, 1)
    denoiser = gaussian_denoiser(sigmas)
    x = noise * math.sqrt(1 + sigmas[0].item() ** 2)
    previous, last_h = None, None
    for i, (now, after) in enumerate(itertools.pairwise(sigmas.tolist())):
        predicted = denoiser(x, i)
        if after == 0:
            x = predicted
            break
        h = math.log(now) - math.log(after)
        target = predicted
        if previous is not None and last_h is not None:
            r = last_h / h
            target = (1 + 1 / (2 * r)) * predicted - previous / (2 * r)
        x = after / now * x - math.expm1(-h) * target
        previous, last_h = predicted, h
    torch.testing.assert_close(sample_dpmpp_2m(denoiser, noise, sigmas), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_step_is_the_prediction(sampler):
    noise, predicted = torch.randn(2, 1, 4, 2, 2).unbind()
    sample = sampler(lambda x, i: predicted, noise, torch.tensor([5.0, 0.0]))
    torch.testing.assert_close(sample, predicted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_hooks_see_every_step_in_order(sampler):
    seen = []
    sigmas = edm_sigmas(4)
    sampler(
        lambda x, i: seen.append(("predict", i)) or x,
        torch.randn(1, 4, 2, 2),
        sigmas,
        before_step=lambda i, sigma: seen.append(("before", i, sigma.item())),
        on_step=lambda i, x, denoised: seen.append(("after", i)),
    )
    wanted = [
        event
        for i, sigma in enumerate(sigmas[:-1].tolist())
        for event in (("before", i, sigma), ("predict", i), ("after", i))
    ]
    assert seen == wanted


def branches_like(device="cpu", frames=2, views=2):
    images = frames * views
    shapes = {
        "concat": (images, 4, 8, 8),
        "cond_motion": (frames, 4, 8, 8),
        "cond_view": (views, 4, 8, 8),
        "crossattn": (1, frames, 6),
        "vector": (images, 10),
    }
    c = {key: torch.randn(shape, device=device) for key, shape in shapes.items()}
    return Branches(c, {key: torch.zeros_like(value) for key, value in c.items()}, frames, views)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_in_the_loop_reads_a_value_from_the_device(sampler):
    """Tensors on the meta device have no values: reading one raises."""
    sigmas = edm_sigmas(5, device="meta")
    denoiser = guided_denoiser(
        lambda x, t, **inputs: x[:, :4] * t.view(-1, 1, 1, 1),
        branches_like("meta"),
        SpatiotemporalPredictionGuider(2.0),
        sigmas,
    )
    sample = sampler(denoiser, torch.randn(4, 4, 8, 8, device="meta"), sigmas)
    assert sample.shape == (4, 4, 8, 8)


def test_the_model_is_fed_both_branches_and_constant_conditioning():
    branches, sigmas, calls = branches_like(), edm_sigmas(3), []

    def model(x, t, **inputs):
        calls.append((x, t, inputs))
        return torch.zeros_like(x[:, :4])

    x = torch.randn(4, 4, 8, 8)
    denoiser = guided_denoiser(model, branches, VanillaCFG(2.0), sigmas)
    denoiser(x, 0)
    predicted = denoiser(x, 1)

    fed, labels, inputs = calls[1]
    scaling = v_scaling(sigmas[1])
    for half, concat in zip(
        fed.chunk(2), (branches.uc["concat"], branches.c["concat"]), strict=True
    ):
        torch.testing.assert_close(half[:, :4], x * scaling.c_in)
        assert torch.equal(half[:, 4:], concat)
    assert torch.equal(labels, scaling.c_noise.expand(8))
    assert labels.is_contiguous()
    assert inputs.pop("num_video_frames") == 4
    for key, value in inputs.items():
        assert value is calls[0][2][key]
    torch.testing.assert_close(predicted, x * scaling.c_skip)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.7])
def test_a_perfect_model_samples_the_closed_form(scale):
    """Guidance between a wrong and a right branch mixes the two predictions linearly."""
    sigmas = edm_sigmas(3, dtype=torch.float64)
    table = v_scaling(sigmas)
    right, wrong = torch.randn(2, 4, 4, 8, 8, dtype=torch.float64).unbind()
    step = 1

    def model(x, t, **inputs):
        latent = x[:4, :4] / table.c_in[step]
        both = torch.cat([wrong, right])
        return (both - table.c_skip[step] * latent.repeat(2, 1, 1, 1)) / table.c_out[step]

    branches = branches_like().to(dtype=torch.float64)
    denoiser = guided_denoiser(model, branches, VanillaCFG(scale), sigmas)
    x = torch.randn(4, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(denoiser(x, step), wrong + scale * (right - wrong))


@pytest.mark.parametrize("share", [0.0, 0.7])
def test_a_call_for_each_branch_predicts_what_one_call_does(unet, golden, share):
    branches = golden_branches(golden, torch.float64)
    model, sigmas = unet.to(torch.float64), edm_sigmas(3, dtype=torch.float64)
    guider = RescaledGuider(SpatiotemporalPredictionGuider(2.0), share)
    told = []
    together = guided_denoiser(model, branches, guider, sigmas)
    apart = sequential_denoiser(
        model, branches, guider, sigmas, lambda i, branch: told.append((i, branch))
    )
    x = 40 * golden["noise"].to(torch.float64)
    with torch.no_grad():
        wanted, found = together(x, 1), apart(x, 1)
    assert told == [(1, "uncond"), (1, "cond")]
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    plain = guided_denoiser(model, branches, guider.guider, sigmas)
    with torch.no_grad():
        assert torch.equal(plain(x, 1), wanted) == (share == 0)
