"""The S-C-M module: spatial, camera and motion blocks in a chain, around one residual."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blend import Blend
from .config import SV4DConfig
from .embedding import mlp, sinusoid
from .geometry import Geometry
from .norm import GroupNorm32
from .transformer import MixBlock, SpatialBlock


class SCMModule(nn.Module):
    """Attention over the pixels of an image (S), its views (C) and its frames (M), in that order.

    Every context has one key: S and C see their frame's image embedding, M the reference view's
    latent at its pixel. Parameter names are the public checkpoints': `time_mix_blocks` is the
    camera block, `motion_blocks` the motion block.

    Args:
        channels: C of the level.
        config: of the network.

    Source: SV4D (Xie et al. 2024) section 3.2, there spatial, view and frame attention.
    """

    def __init__(self, channels: int, config: SV4DConfig) -> None:
        super().__init__()
        self.channels = channels
        self.use_camera_emb = config.use_camera_emb
        self.camera_axis = config.attention_3d if config.use_3d_attention else "views"
        heads, wide = config.num_head_channels, config.context_dim
        self.norm = GroupNorm32(channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(channels, wide, heads)])
        self.time_mix_blocks = nn.ModuleList([MixBlock(channels, wide, heads)])
        self.motion_blocks = nn.ModuleList([MixBlock(channels, config.motion_context_dim, heads)])
        view_channels = config.adm_in_channels if config.use_camera_emb else channels
        self.time_mix_time_embed = mlp(view_channels, 4 * channels, channels)
        self.time_mix_motion_embed = mlp(channels, 4 * channels, channels)
        self.time_mixer = Blend(config.time_block_merge_factor)
        if config.separate_motion_merge_factor:
            self.time_mixer_motion = Blend(config.time_block_merge_factor)
        else:
            self.time_mixer_motion = None
        self.proj_out = nn.Linear(channels, channels)

    def forward(
        self, x: Tensor, emb: Tensor, context: Tensor, cond_view: Tensor, geometry: Geometry
    ) -> Tensor:
        """Run the chain.

        Args:
            x: [B*F*V, C, H, W].
            emb: [B*F*V, E], the time embedding; only `use_camera_emb` reads it.
            context: [B, F, Ec], one image embedding a frame.
            cond_view: [B*V, Cv, h, w], reference latents; resized to H, W.
            geometry: of the image axis.

        Returns:
            [B*F*V, C, H, W].
        """
        branches, frames, views = geometry
        height, width = x.shape[-2:]
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))

        per_image = _repeat_rows(context.flatten(0, 1)[:, None], views)
        tokens = self.transformer_blocks[0](tokens, per_image)

        grid = tokens.view(branches, frames, views, height * width, self.channels)
        grid = self.time_mixer(grid, self._camera(grid, emb, context))
        mixer = self.time_mixer if self.time_mixer_motion is None else self.time_mixer_motion
        resized = F.interpolate(cond_view, size=(height, width), mode="bilinear")
        grid = mixer(grid, self._motion(grid, resized))

        tokens = self.proj_out(grid.flatten(0, 2))
        return x + tokens.transpose(1, 2).reshape(x.shape)

    def _camera(self, grid: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        branches, frames, views, pixels, channels = grid.shape
        block = self.time_mix_blocks[0]
        hidden = grid + self._view_embedding(grid, emb)
        per_frame = context.flatten(0, 1)[:, None]
        if self.camera_axis == "full":
            mixed = block(hidden.flatten(2, 3).flatten(0, 1), per_frame)
            return mixed.view(grid.shape)
        per_pixel = _repeat_rows(per_frame, pixels)
        if self.camera_axis == "views":
            groups = hidden.transpose(2, 3).reshape(-1, views, channels)
            mixed = block(groups, per_pixel)
            return mixed.view(branches, frames, pixels, views, channels).transpose(2, 3)
        # The public code's 3D attention: "views" consecutive entries of the flat (b v h w) axis,
        # at one frame, against contexts that stay in (b f h w) order.
        flat = hidden.permute(0, 2, 3, 1, 4).reshape(-1, views, frames, channels)
        mixed = block(flat.transpose(1, 2).reshape(-1, views, channels), per_pixel)
        flat = mixed.view(-1, frames, views, channels).transpose(1, 2)
        return flat.reshape(branches, views, pixels, frames, channels).permute(0, 3, 1, 2, 4)

    def _motion(self, grid: Tensor, cond_view: Tensor) -> Tensor:
        branches, frames, views, pixels, channels = grid.shape
        order = torch.arange(frames, device=grid.device)
        embedding = self.time_mix_motion_embed(sinusoid(order, channels, grid.dtype))
        hidden = grid + embedding[:, None, None]
        groups = hidden.permute(0, 2, 3, 1, 4).reshape(-1, frames, channels)
        per_pixel = cond_view.flatten(2).transpose(1, 2).reshape(-1, 1, cond_view.shape[1])
        mixed = self.motion_blocks[0](groups, per_pixel)
        return mixed.view(branches, views, pixels, frames, channels).permute(0, 3, 1, 2, 4)

    def _view_embedding(self, grid: Tensor, emb: Tensor) -> Tensor:
        branches, frames, views, _, channels = grid.shape
        if self.use_camera_emb:
            first = emb.view(branches, frames, views, emb.shape[-1])[:, 0]
            return self.time_mix_time_embed(first)[:, None, :, None]
        order = torch.arange(views, device=grid.device)
        return self.time_mix_time_embed(sinusoid(order, channels, grid.dtype))[:, None]


def _repeat_rows(rows: Tensor, times: int) -> Tensor:
    """[R, 1, E] to [R*times, 1, E], each row `times` times in a run."""
    return rows.expand(-1, times, -1).reshape(-1, 1, rows.shape[-1])
