"""An exact ray caster for scenes of ellipsoids under orthographic cameras, on a white ground."""

import math

import torch
from torch import Tensor

ELEVATION_RAD = math.radians(12.0)
_LIGHT = (0.30, 0.62, 0.72)  # in camera axes (right, up, towards the camera)
_AMBIENT = 0.70


def camera_axes(azimuth_rad: Tensor, elevation_rad: float = ELEVATION_RAD) -> Tensor:
    """Camera rotations [V, 3, 3]; the rows are right, up and towards the camera, in world axes."""
    cos_a, sin_a = torch.cos(azimuth_rad), torch.sin(azimuth_rad)
    cos_e, sin_e = math.cos(elevation_rad), math.sin(elevation_rad)
    zero = torch.zeros_like(cos_a)
    right = torch.stack([cos_a, zero, -sin_a], -1)
    up = torch.stack([-sin_a * sin_e, zero + cos_e, -cos_a * sin_e], -1)
    towards = torch.stack([sin_a * cos_e, zero + sin_e, cos_a * cos_e], -1)
    return torch.stack([right, up, towards], 1)


def _paint(part: Tensor, local: Tensor, colours: Tensor, waist: float) -> Tensor:
    """Colour [R, 3] of points `local` [R, 3] on the unit sphere of `part` [R] in creature.PARTS."""
    x, y, z = local.unbind(-1)
    torso = torch.where(y > waist, 0, 1)
    torso = torch.where((z > 0.45) & (x.abs() < 0.6), 2, torso)
    head = torch.where(z > 0.5, 4, 3)
    head = torch.where(y > 0.35, 5, head)
    arm = torch.where(y < -0.25, 7, 6)
    leg = torch.where(y < -0.1, 9, 8)
    index = torch.where(
        part == 0, torso, torch.where(part == 1, head, torch.where(part < 4, arm, leg))
    )
    return colours[index]


def render_ellipsoids(
    centres: Tensor,
    axes: Tensor,
    colours: Tensor,
    waist: float,
    azimuth_rad: Tensor,
    size: int,
    samples: int = 2,
) -> tuple[Tensor, Tensor]:
    """Renders every view of every frame.

    Args:
        centres: [F, P, 3] world positions.
        axes: [F, P, 3, 3]; world = centre + axes @ local.
        colours: [10, 3] RGB in creature.COLOURS order.
        waist: see `creature.Creature`.
        azimuth_rad: [V] camera azimuths; 0 looks at the creature's face.
        size: H = W in pixels.
        samples: rays per pixel along each side.

    Returns:
        images [V, F, 3, H, W] in [0, 1] and coverage [V, F, 1, H, W], the share of a pixel's rays
        that hit the object.
    """
    views, frames, fine = azimuth_rad.shape[0], centres.shape[0], size * samples
    camera = camera_axes(azimuth_rad.to(centres))
    # local = M @ (camera point - camera centre), M = axes^-1 @ camera^T
    matrix = torch.linalg.inv(axes)[None] @ camera[:, None, None].transpose(-1, -2)  # V F P 3 3
    offset = -(matrix @ (camera[:, None, None] @ centres[None, ..., None])).squeeze(-1)  # V F P 3
    grid = (torch.arange(fine, dtype=centres.dtype) + 0.5) * (2.0 / fine) - 1.0
    u = grid.repeat(fine)
    v = (-grid).repeat_interleave(fine)
    plane = torch.stack([u, v, torch.ones_like(u)])  # 3 R

    # |q + z m|^2 = 1 with q affine in (u, v): q.m is affine and |q|^2 quadratic in (u, v), so no
    # vector is formed per ray and part.
    affine = torch.stack([matrix[..., 0], matrix[..., 1], offset], -1)  # V F P 3(local) 3(u v 1)
    m = matrix[..., 2]
    mm = (m * m).sum(-1, keepdim=True)
    qm = (m[..., None, :] @ affine).squeeze(-2)  # V F P 3
    gram = affine.transpose(-1, -2) @ affine  # V F P 3 3
    disc = qm[..., :, None] * qm[..., None, :] - mm[..., None] * gram
    disc[..., 2, 2] += mm.squeeze(-1)
    quadratic = torch.stack([u * u, 2 * u * v, 2 * u, v * v, 2 * v, torch.ones_like(u)])  # 6 R
    upper = torch.stack(
        [disc[..., i, j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))], -1
    )
    root = (upper @ quadratic).sqrt()  # nan where the ray misses
    depth = ((root - qm @ plane) / mm).nan_to_num_(nan=-1e4)  # V F P R
    depth, part = depth.max(2)  # V F R

    hit = depth > -1e3
    image_index, ray_index = hit.flatten(0, 1).nonzero(as_tuple=True)
    chosen = part.flatten(0, 1)[image_index, ray_index]
    flat_affine = affine.flatten(0, 1)[image_index, chosen]  # R' 3 3
    flat_matrix = matrix.flatten(0, 1)[image_index, chosen]
    z = depth.flatten(0, 1)[image_index, ray_index]
    local = (flat_affine @ plane[:, ray_index].T[..., None]).squeeze(-1) + z[:, None] * flat_matrix[
        ..., 2
    ]
    normal = torch.nn.functional.normalize(
        (flat_matrix.transpose(-1, -2) @ local[..., None]).squeeze(-1), dim=-1
    )
    light = torch.nn.functional.normalize(torch.tensor(_LIGHT, dtype=centres.dtype), dim=0)
    shade = _AMBIENT + (1.0 - _AMBIENT) * (normal @ light).clamp(min=0.0)
    rgb = _paint(chosen, local, colours, waist) * shade[:, None]

    canvas = torch.ones(views * frames, fine * fine, 3, dtype=centres.dtype)
    canvas[image_index, ray_index] = rgb
    canvas = canvas.view(views * frames, fine, fine, 3).permute(0, 3, 1, 2)
    covered = hit.view(views * frames, 1, fine, fine).to(centres.dtype)
    images = torch.nn.functional.avg_pool2d(canvas, samples)
    coverage = torch.nn.functional.avg_pool2d(covered, samples)
    shape = (views, frames)
    return images.unflatten(0, shape).clamp(0.0, 1.0), coverage.unflatten(0, shape)
