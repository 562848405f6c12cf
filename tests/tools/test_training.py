"""What the nano model is trained on and with: target, noise levels, attention, optimiser."""

from __future__ import annotations

import torch
from torch import nn
from turbo4d.models.attention import Attention
from turbo4d.models.schedule import v_scaling
from turbo4d.tools.training.attention import TrainingAttention, use_training_attention
from turbo4d.tools.training.batch import FRAMES, VIEWS, draw_sigma, network_inputs
from turbo4d.tools.training.muon import Muon


def test_target_recovers_the_clean_latent() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, VIEWS, FRAMES, 4, 8, 8, generator=generator)
    noise = torch.randn(2, FRAMES, VIEWS, 4, 8, 8, generator=generator)
    sigma = torch.tensor([0.5, 30.0])
    inputs, target = network_inputs(latents, sigma, noise, torch.tensor([False, True]))
    x, timesteps, context, y, cond_view = inputs
    scaling = v_scaling(sigma.repeat_interleave(VIEWS * FRAMES).view(-1, 1, 1, 1))
    denoised = scaling.c_skip * (x[:, :4] / scaling.c_in) + scaling.c_out * target
    clean = latents.transpose(1, 2).flatten(0, 2)
    torch.testing.assert_close(denoised, clean, atol=1e-4, rtol=0)
    torch.testing.assert_close(timesteps, scaling.c_noise.flatten())
    images = VIEWS * FRAMES
    assert torch.equal(x[VIEWS + 1, 4:], latents[0, 0, 1])  # frame 1 of view 0, shown to view 1
    assert x[images:, 4:].abs().max() == 0
    assert context[1].abs().max() == cond_view[VIEWS:].abs().max() == 0
    assert torch.equal(y[:images, 64:], y[images:, 64:])


def test_noise_levels_stay_in_range_and_reach_both_ends() -> None:
    sigma = draw_sigma(20_000, torch.Generator().manual_seed(0))
    assert sigma.min() >= 0.002
    assert sigma.max() <= 700.0
    assert 0.5 < (sigma > 5).double().mean() < 0.65
    assert (sigma < 0.1).double().mean() > 0.02


def test_training_attention_is_the_same_function() -> None:
    torch.manual_seed(0)
    for length, keys in ((5, 0), (49, 0), (7, 1)):
        attention = Attention(64, 24 if keys else 64, 32)
        x = torch.randn(6, length, 64)
        context = torch.randn(6, 1, 24) if keys else None
        expected = attention(x, context)
        use_training_attention(nn.ModuleList([attention]))
        assert type(attention) is TrainingAttention
        found = attention(x, context).expand_as(expected)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        use_training_attention(nn.ModuleList([attention]), on=False)
        assert type(attention) is Attention


def test_muon_moves_every_direction_alike() -> None:
    """From a gradient of widely spread singular values, an update whose own are all near 1."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.zeros(32, 64))
    u, _, v = torch.linalg.svd(torch.randn(32, 64, generator=generator), full_matrices=False)
    gradient = u @ torch.logspace(0, -1, 32).diag() @ v
    weight.grad = gradient.clone()
    Muon([weight], weight_decay=0.0).step(lr=1.0)
    values = torch.linalg.svdvals(weight.detach()) / (0.2 * 64**0.5)
    assert values.min() > 0.5
    assert values.max() < 1.4
    assert (weight.detach() * gradient).sum() < 0


def test_muon_takes_kernels_of_one_matrix_shape_together() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 4, 3, 1, 1), (8, 12, 1, 1), (8, 12)]
    kernels = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    gradient = torch.randn(8, 12, generator=generator)
    for kernel in kernels:
        kernel.grad = gradient.view(kernel.shape)
    Muon(kernels).step(lr=0.1)
    assert kernels[0].abs().max() > 0
    for kernel in kernels[1:]:
        assert torch.equal(kernel.flatten(), kernels[0].flatten())
