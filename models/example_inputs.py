"""A complete call of the denoiser, for capture, tests and timings."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

from .config import SV4DConfig
from .errors import ConfigError


class DenoiserInputs(TypedDict):
    """The keyword arguments of one call of `SV4DUNet`."""

    x: Tensor
    timesteps: Tensor
    context: Tensor
    y: Tensor
    num_video_frames: int
    image_only_indicator: Tensor
    cond_view: Tensor
    cond_motion: Tensor


def example_inputs(
    config: SV4DConfig,
    *,
    branches: int = 2,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> DenoiserInputs:
    """Random inputs of the shapes that the public sampling scripts pass.

    Args:
        config: with frames and views set.
        branches: B, the guidance branches; 2 is an unconditional and a conditional one.
        seed: of a CPU generator, so that values agree across devices; "meta" draws nothing.
        device: of the tensors.
        dtype: of the tensors. Default: torch's own.

    Returns:
        x [B*F*V, Ci, H, W]; timesteps [B*F*V], one level throughout; context [B, F, E];
        y [B*F*V, A]; cond_view [B*V, Cv, H, W]; cond_motion [B*F, Cv, H, W];
        image_only_indicator [B, F*V] of ones; num_video_frames F*V.

    Raises:
        ConfigError: where the configuration leaves frames or views open.
    """
    if config.frames is None or config.views is None:
        raise ConfigError(
            f"example_inputs: the configuration has frames {config.frames} and views "
            f"{config.views}; both must be set."
        )
    dtype = dtype or torch.get_default_dtype()
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        if torch.device(device).type == "meta":
            return torch.empty(shape, device=device, dtype=dtype)
        return torch.randn(shape, generator=generator).to(device, dtype)

    frames, views, side = config.frames, config.views, config.latent_size
    images = branches * frames * views
    reference = (config.motion_context_dim, side, side)
    return {
        "x": draw(images, config.in_channels, side, side),
        "timesteps": torch.full((images,), 0.5, device=device, dtype=dtype),
        "context": draw(branches, frames, config.context_dim),
        "y": draw(images, config.adm_in_channels),
        "num_video_frames": frames * views,
        "image_only_indicator": torch.ones(branches, frames * views, device=device, dtype=dtype),
        "cond_view": draw(branches * views, *reference),
        "cond_motion": draw(branches * frames, *reference),
    }
