"""The SV4D family's denoiser, with the public call and the public checkpoints' parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import SV4DConfig
from .embedding import mlp, sinusoid
from .errors import InputError
from .geometry import Geometry, geometry_of
from .norm import GroupNorm32
from .resample import Downsample, Upsample
from .resblock import ResBlock
from .scm import SCMModule


class SV4DUNet(nn.Module):
    """A UNet over V views x F frames whose levels hold residual blocks and S-C-M modules.

    Args:
        config: of the network.
        device: where the parameters live; "meta" allocates nothing. Default: torch's own.
        dtype: of the parameters. Default: torch's own.

    Attributes:
        config: as given.
        turbo4d_geometry: the views and frames that the configuration fixes.

    Source: SV4D (Xie et al. 2024), SV4D 2.0 (Yao et al. 2025); topology of Stability's
    generative-models, commit 0ad7de9.
    """

    def __init__(
        self,
        config: SV4DConfig,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.turbo4d_geometry = {
            axis: size
            for axis, size in (("views", config.views), ("frames", config.frames))
            if size is not None
        }
        with torch.device("meta"):
            self._build(config)
        self.to(dtype or torch.get_default_dtype())
        target = torch.device(device) if device is not None else torch.get_default_device()
        if target.type != "meta":
            self.to_empty(device=target)
            self.reset_parameters()

    def _build(self, config: SV4DConfig) -> None:
        width, embed = config.model_channels, config.embed_channels
        self.time_embed = mlp(width, embed, embed)
        self.label_emb = nn.Sequential(mlp(config.adm_in_channels, embed, embed))
        first = nn.Conv2d(config.in_channels, width, 3, padding=1)
        self.input_blocks = nn.ModuleList([nn.ModuleList([first])])
        self.middle_block = nn.ModuleList()
        self.output_blocks = nn.ModuleList()

        def res(channels: int, out_channels: int) -> ResBlock:
            return ResBlock(channels, out_channels, embed, config.time_block_merge_factor)

        def stage(channels: int, out_channels: int, level: int) -> nn.ModuleList:
            parts: list[nn.Module] = [res(channels, out_channels)]
            if 2**level in config.attention_resolutions:
                parts.append(SCMModule(out_channels, config))
            return nn.ModuleList(parts)

        levels = [width * multiple for multiple in config.channel_mult]
        channels, skips = width, [width]
        for level, out_channels in enumerate(levels):
            for _ in range(config.num_res_blocks):
                self.input_blocks.append(stage(channels, out_channels, level))
                channels = out_channels
                skips.append(channels)
            if level + 1 < len(levels):
                self.input_blocks.append(nn.ModuleList([Downsample(channels)]))
                skips.append(channels)
        self.middle_block.extend(
            [res(channels, channels), SCMModule(channels, config), res(channels, channels)]
        )
        for level, out_channels in reversed(list(enumerate(levels))):
            for index in range(config.num_res_blocks + 1):
                parts = stage(channels + skips.pop(), out_channels, level)
                channels = out_channels
                if level and index == config.num_res_blocks:
                    parts.append(Upsample(channels))
                self.output_blocks.append(parts)
        last = nn.Conv2d(channels, config.out_channels, 3, padding=1)
        self.out = nn.Sequential(GroupNorm32(channels), nn.SiLU(), last)

    def reset_parameters(self) -> None:
        """Draw the initial parameters; the last layer of every residual branch starts at zero."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if module is not self and callable(reset):
                reset()
        for module in self.modules():
            if isinstance(module, SCMModule):
                _zero(module.proj_out)
            elif isinstance(module, ResBlock):
                _zero(module.out_layers[-1])
                _zero(module.time_mix_blocks.out_layers[-1])
        _zero(self.out[-1])

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        cam: Tensor | None = None,
        time_context: Tensor | None = None,
        num_video_frames: int | None = None,
        image_only_indicator: Tensor | None = None,
        cond_view: Tensor | None = None,
        cond_motion: Tensor | None = None,
        time_step: Tensor | None = None,
    ) -> Tensor:
        """Denoise; images are in the order (b f v), b the guidance branch.

        Args:
            x: [B*F*V, Ci, H, W], the noisy latent times c_in, with the concat conditioning.
            timesteps: [B*F*V], c_noise.
            context: [B, F, Ec], one image embedding a frame.
            y: [B*F*V, A], the vector conditioning.
            num_video_frames: F * V, or None.
            cond_view: [B*V, Cv, h, w], reference latents, order (b v).
            cam: without effect, as in the public network.
            time_context: must be None.
            image_only_indicator: without effect, as in the public network.
            cond_motion: without effect, as in the public network.
            time_step: without effect, as in the public network.

        Returns:
            [B*F*V, Co, H, W].

        Raises:
            InputError: where an input is missing or the shapes disagree.
        """
        if context is None or y is None or cond_view is None:
            raise InputError("SV4DUNet: context, y and cond_view are required.")
        if time_context is not None:
            raise InputError("SV4DUNet: time_context is given; the SV4D networks take none.")
        geometry = geometry_of(self.config, x, context, cond_view, num_video_frames)

        level = sinusoid(timesteps, self.config.model_channels, x.dtype)
        emb = self.time_embed(level) + self.label_emb(y)
        skips: list[Tensor] = []
        hidden = x
        for stage in self.input_blocks:
            hidden = _run(stage, hidden, emb, context, cond_view, geometry)
            skips.append(hidden)
        hidden = _run(self.middle_block, hidden, emb, context, cond_view, geometry)
        for stage in self.output_blocks:
            joined = torch.cat((hidden, skips.pop()), dim=1)
            hidden = _run(stage, joined, emb, context, cond_view, geometry)
        return self.out(hidden)


def _run(
    stage: nn.Module,
    hidden: Tensor,
    emb: Tensor,
    context: Tensor,
    cond_view: Tensor,
    geometry: Geometry,
) -> Tensor:
    for part in stage.children():
        if isinstance(part, ResBlock):
            hidden = part(hidden, emb, geometry)
        elif isinstance(part, SCMModule):
            hidden = part(hidden, emb, context, cond_view, geometry)
        else:
            hidden = part(hidden)
    return hidden


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
