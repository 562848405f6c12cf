"""Which tokens each block of the chain sees together, told by sending positions through it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from turbo4d.models.config import SV4DConfig
from turbo4d.models.geometry import Geometry
from turbo4d.models.scm import SCMModule

TINY = replace(SV4DConfig.named("tiny"), context_dim=2, motion_context_dim=2)
GEOMETRY = Geometry(branches=2, frames=3, views=4)
HEIGHT, WIDTH = 6, 6
CHANNELS = 32
# Channels of a token that say where it comes from.
BRANCH, FRAME, VIEW, ROW, COLUMN = range(5)


class Probe(nn.Module):
    """A block that keeps what it was given and returns it unchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.x = self.context = torch.empty(0)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        self.x, self.context = x, context
        return x


class Silent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], CHANNELS)


def probed(config: SV4DConfig) -> SCMModule:
    """An S-C-M module that moves tokens about but computes nothing with them."""
    module = SCMModule(CHANNELS, config)
    for name in ("norm", "proj_in"):
        module.set_submodule(name, nn.Identity())
    for name in ("time_mix_time_embed", "time_mix_motion_embed"):
        module.set_submodule(name, Silent())
    for blocks in (module.transformer_blocks, module.time_mix_blocks, module.motion_blocks):
        blocks[0] = Probe()
    return module


def positions() -> Tensor:
    """[B*F*V, C, H, W] whose first five channels hold branch, frame, view, row, column."""
    axes = [torch.arange(float(size)) for size in (*GEOMETRY, HEIGHT, WIDTH)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    flat = grid.movedim(0, 3).reshape(GEOMETRY.images, 5, HEIGHT, WIDTH)
    return torch.cat((flat, torch.zeros(GEOMETRY.images, CHANNELS - 5, HEIGHT, WIDTH)), dim=1)


def run(config: SV4DConfig, blocks: str) -> Probe:
    """The probe in the module's `blocks`, after a call."""
    module = probed(config)
    branches, frames, views = GEOMETRY
    rows = torch.arange(float(branches * frames)).view(branches, frames)
    context = torch.stack((rows // frames, rows % frames), dim=-1)
    pairs = torch.arange(float(branches * views))
    cond_view = torch.stack((pairs // views, pairs % views), dim=-1)[..., None, None]
    cond_view = cond_view.expand(-1, -1, HEIGHT, WIDTH)
    with torch.no_grad():
        module(positions(), torch.zeros(GEOMETRY.images, 128), context, cond_view, GEOMETRY)
    probe = module.get_submodule(f"{blocks}.0")
    assert isinstance(probe, Probe)
    return probe


def same(tokens: Tensor, *channels: int) -> bool:
    return all(bool((tokens[..., c] == tokens[:, :1, c]).all()) for c in channels)


def ordered(tokens: Tensor, channel: int) -> bool:
    wanted = torch.arange(float(tokens.shape[1])).expand(tokens.shape[0], -1)
    return torch.equal(tokens[..., channel], wanted)


def test_spatial_groups_are_images_with_their_frames_context() -> None:
    probe = run(TINY, "transformer_blocks")
    assert probe.x.shape == (24, HEIGHT * WIDTH, CHANNELS)
    assert same(probe.x, BRANCH, FRAME, VIEW)
    assert ordered(probe.x[..., ROW : ROW + 1] * WIDTH + probe.x[..., COLUMN : COLUMN + 1], 0)
    assert torch.equal(probe.context[:, 0], probe.x[:, 0, [BRANCH, FRAME]])


def test_camera_groups_are_the_views_of_a_pixel_with_their_frames_context() -> None:
    probe = run(TINY, "time_mix_blocks")
    assert probe.x.shape == (2 * 3 * HEIGHT * WIDTH, 4, CHANNELS)
    assert same(probe.x, BRANCH, FRAME, ROW, COLUMN)
    assert ordered(probe.x, VIEW)
    assert torch.equal(probe.context[:, 0], probe.x[:, 0, [BRANCH, FRAME]])


def test_motion_groups_are_the_frames_of_a_pixel_with_their_views_context() -> None:
    probe = run(TINY, "motion_blocks")
    assert probe.x.shape == (2 * 4 * HEIGHT * WIDTH, 3, CHANNELS)
    assert same(probe.x, BRANCH, VIEW, ROW, COLUMN)
    assert ordered(probe.x, FRAME)
    assert torch.equal(probe.context[:, 0], probe.x[:, 0, [BRANCH, VIEW]])


def test_3d_attention_as_shipped_groups_neighbours_not_views() -> None:
    probe = run(replace(TINY, use_3d_attention=True), "time_mix_blocks")
    assert probe.x.shape == (2 * 3 * HEIGHT * WIDTH, 4, CHANNELS)
    assert same(probe.x, BRANCH, FRAME)
    assert not same(probe.x, COLUMN)
    place = (probe.x[..., BRANCH] * 4 + probe.x[..., VIEW]) * HEIGHT + probe.x[..., ROW]
    place = place * WIDTH + probe.x[..., COLUMN]
    start = torch.arange(0.0, 2 * 4 * HEIGHT * WIDTH, 4).repeat_interleave(3)
    assert torch.equal(place, start[:, None] + torch.arange(4.0))
    # 36 pixels are a multiple of 4, so no group straddles a view; rows of 6 do straddle.
    assert same(probe.x, VIEW)
    assert not same(probe.x, ROW)
    # The public code leaves the contexts in (b f h w) order: row g*F + t of that list.
    in_order = torch.tensor([[b, t] for b in range(2) for t in range(3)]).float()
    assert torch.equal(probe.context[:, 0], in_order.repeat_interleave(HEIGHT * WIDTH, dim=0))


def test_3d_attention_in_full_groups_all_views_and_pixels_of_a_frame() -> None:
    probe = run(replace(TINY, use_3d_attention=True, attention_3d="full"), "time_mix_blocks")
    assert probe.x.shape == (2 * 3, 4 * HEIGHT * WIDTH, CHANNELS)
    assert same(probe.x, BRANCH, FRAME)
    assert torch.equal(probe.context[:, 0], probe.x[:, 0, [BRANCH, FRAME]])


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, use_3d_attention=True),
        replace(TINY, use_3d_attention=True, attention_3d="full"),
    ],
    ids=["views", "shipped", "full"],
)
def test_blocks_that_return_their_input_leave_every_token_in_place(config: SV4DConfig) -> None:
    module = probed(config)
    module.set_submodule("proj_out", nn.Identity())
    x = positions()
    with torch.no_grad():
        out = module(
            x, torch.zeros(24, 128), torch.zeros(2, 3, 2), torch.zeros(8, 2, 3, 3), GEOMETRY
        )
    torch.testing.assert_close(out, 2 * x, atol=1e-6, rtol=0)


def test_the_view_embedding_follows_the_level_only_with_camera_emb() -> None:
    def change(config: SV4DConfig, image: int) -> float:
        torch.manual_seed(0)
        module = SCMModule(CHANNELS, config)
        x, context = torch.randn(24, CHANNELS, 4, 4), torch.randn(2, 3, 2)
        emb, cond_view = torch.randn(24, 128), torch.randn(8, 2, 4, 4)
        altered = emb.clone()
        altered[image] += 1
        with torch.no_grad():
            before = module(x, emb, context, cond_view, GEOMETRY)
            after = module(x, altered, context, cond_view, GEOMETRY)
        return (after - before).abs().max().item()

    camera = replace(TINY, use_camera_emb=True, separate_motion_merge_factor=True)
    assert change(TINY, 0) == 0
    assert change(camera, 0) > 1e-4
    # Frames after the first do not feed it.
    assert change(camera, 4) == 0
