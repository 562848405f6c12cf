"""What can be predicted without a model: the figures any sample must stand beside."""

from __future__ import annotations

import torch
from torch import Tensor

_GROUND = 0.95  # a pixel whose darkest channel is below this shows the object, on a white ground


def trivial_predictions(frames: Tensor, views: Tensor) -> dict[str, Tensor]:
    """Every trivial predictor of a scene, from its conditioning images alone.

    Args:
        frames: [F, 3, H, W] in [0, 1], view 0 at every frame.
        views: [V, 3, H, W] in [0, 1], every view at frame 0.

    Returns:
        Name to images [V, F, 3, H, W]:
        `white`: nothing but the ground;
        `mean_colour`: everywhere the mean colour of the object in the conditioning images;
        `mean_conditioning`: everywhere the mean of the F + V - 1 distinct conditioning images;
        `same_frame`: view 0 at the same frame;
        `same_view`: the same view at frame 0;
        `nearest`: of all conditioning images the one nearest in cameras on the circle plus frames
        on the clock; the same view where two are as near.
    """
    count, cameras = len(frames), len(views)
    shape = (cameras, count, *frames.shape[1:])
    shown = torch.cat([frames, views[1:]])
    is_object = (shown.amin(1, keepdim=True) < _GROUND).to(shown)
    colour = (shown * is_object).sum((0, 2, 3)) / is_object.sum().clamp(min=1.0)
    same_frame = frames[None].expand(shape)
    same_view = views[:, None].expand(shape)
    time = torch.arange(count, device=frames.device)
    camera = torch.arange(cameras, device=frames.device)
    around = torch.minimum(camera, cameras - camera)
    use_frame = (around[:, None] < time[None])[..., None, None, None]
    return {
        "white": torch.ones(shape, dtype=frames.dtype, device=frames.device),
        "mean_colour": colour.view(3, 1, 1).expand(shape),
        "mean_conditioning": shown.mean(0).expand(shape),
        "same_frame": same_frame,
        "same_view": same_view,
        "nearest": torch.where(use_frame, same_frame, same_view),
    }
