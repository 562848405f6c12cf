"""How the flat image axis of a call factors into branches, frames and views."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .config import SV4DConfig
from .errors import InputError


class Geometry(NamedTuple):
    """The factors of the image axis (b f v): guidance branches, frames, views."""

    branches: int
    frames: int
    views: int

    @property
    def images(self) -> int:
        """Length of the image axis."""
        return self.branches * self.frames * self.views


def geometry_of(
    config: SV4DConfig, x: Tensor, context: Tensor, cond_view: Tensor, num_video_frames: int | None
) -> Geometry:
    """The geometry of one call, from shapes alone.

    Args:
        config: what it fixes, the call must agree with.
        x: [B*F*V, C, H, W], H and W multiples of the deepest level's downsampling.
        context: [B, F, E].
        cond_view: [B*V, Cv, h, w].
        num_video_frames: F * V as the public scripts pass it, or None.

    Raises:
        InputError: where the shapes contradict each other or the configuration.
    """
    if x.dim() != 4 or context.dim() != 3 or cond_view.dim() != 4:
        raise InputError(
            f"SV4DUNet: x, context and cond_view have {x.dim()}, {context.dim()} and "
            f"{cond_view.dim()} axes; wanted 4, 3 and 4."
        )
    stride = 2 ** (len(config.channel_mult) - 1)
    if x.shape[2] % stride or x.shape[3] % stride:
        raise InputError(
            f"SV4DUNet: the latent is {x.shape[2]} x {x.shape[3]}; with "
            f"{len(config.channel_mult)} levels both sides must be multiples of {stride}."
        )
    branches, frames = context.shape[0], context.shape[1]
    views = cond_view.shape[0] // branches
    found = Geometry(branches, frames, views)
    if cond_view.shape[0] != branches * views or x.shape[0] != found.images:
        raise InputError(
            f"SV4DUNet: x has {x.shape[0]} images, context {branches} branches of {frames} frames, "
            f"cond_view {cond_view.shape[0]} views in all; wanted images = branches x frames x "
            f"views and cond_view's length = branches x views."
        )
    for name, declared, got in (
        ("frames", config.frames, frames),
        ("views", config.views, views),
        ("frames x views (num_video_frames)", num_video_frames, frames * views),
    ):
        if declared is not None and declared != got:
            raise InputError(f"SV4DUNet: the call has {got} {name}; wanted {declared}.")
    return found
