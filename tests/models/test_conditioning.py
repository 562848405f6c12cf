"""Conditioning: every image in its place, and the unconditional branch told the angles only."""

from __future__ import annotations

import pytest
import torch
from turbo4d.models.branches import Branches
from turbo4d.models.conditioning import VECTOR_CHANNELS, build_conditioning, sinusoid
from turbo4d.models.embedding import sinusoid as network_sinusoid

F, V = 5, 4


def _inputs(batch: int = 1) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(batch, F, 4, 16, 16, generator=generator)
    views = torch.randn(batch, V, 4, 16, 16, generator=generator)
    return frames, views, torch.full((V,), 1.36), torch.arange(V) * 1.57


def test_shapes_and_order() -> None:
    frames, views, polar, azimuth = _inputs(batch=2)
    c, _ = build_conditioning(frames, views, polar, azimuth)
    assert {key: tuple(value.shape) for key, value in c.items()} == {
        "crossattn": (2, F, 64),
        "vector": (2 * F * V, 256),
        "concat": (2 * F * V, 4, 16, 16),
        "cond_view": (2 * V, 4, 16, 16),
        "cond_motion": (2 * F, 4, 16, 16),
    }
    b, t, v = 1, 3, 2
    image = (b * F + t) * V + v
    assert torch.equal(c["concat"][image], frames[b, t])
    assert torch.equal(c["cond_view"][b * V + v], views[b, v])
    assert torch.equal(c["cond_motion"][b * F + t], frames[b, t])
    first_cell = frames[b, t, 0, :4, :4].mean()
    torch.testing.assert_close(c["crossattn"][b, t, 0], first_cell, atol=1e-6, rtol=0)
    angle = sinusoid(azimuth[v : v + 1], VECTOR_CHANNELS[2])[0]
    assert torch.equal(c["vector"][image, -VECTOR_CHANNELS[2] :], angle)


def test_unconditional_branch_knows_the_angles_only() -> None:
    c, uc = build_conditioning(*_inputs())
    assert sorted(uc) == sorted(c)
    for key, value in uc.items():
        if key != "vector":
            assert value.abs().max() == 0
    noise = VECTOR_CHANNELS[0]
    assert uc["vector"][:, :noise].abs().max() == 0
    assert c["vector"][:, :noise].abs().max() == 1
    assert torch.equal(uc["vector"][:, noise:], c["vector"][:, noise:])


def test_branches_accept_it() -> None:
    c, uc = build_conditioning(*_inputs())
    joined = Branches(c, uc, F, V).joined()
    assert joined["concat"].shape == (2 * F * V, 4, 16, 16)


def test_cameras_can_be_told_apart() -> None:
    c, _ = build_conditioning(*_inputs())
    rows = c["vector"][:V]
    assert torch.pdist(rows).min() > 0.5


def test_sinusoid_is_the_networks() -> None:
    values = torch.tensor([0.3, 1.2, 5.0])
    torch.testing.assert_close(
        sinusoid(values, 96), network_sinusoid(values, 96, torch.float32), atol=1e-6, rtol=0
    )


def test_what_is_refused() -> None:
    frames, views, polar, azimuth = _inputs()
    with pytest.raises(ValueError, match="conditioning: ") as caught:
        build_conditioning(frames, views.repeat(2, 1, 1, 1, 1), polar, azimuth)
    assert str(caught.value) == (
        "conditioning: 1 input videos but 2 sets of reference views; give one set per video."
    )
    with pytest.raises(ValueError, match="conditioning: ") as caught:
        build_conditioning(frames, views, polar[:3], azimuth)
    assert str(caught.value) == (
        "conditioning: 4 views but angles of shape (3,) and (4,); give one angle per view."
    )
