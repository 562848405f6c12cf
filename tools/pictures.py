"""Pictures of a 4D asset: the animation, the sheet of all images, the amplified difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

TILE_PX = 192  # small images are enlarged to about this, by whole factors
GAP_PX = 4
HEADER_PX = 22
MARGIN_PX = 64  # left of the rows, for their labels
FRAME_MS = 140
FACTORS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_INK, _PAPER = (40, 40, 40), (255, 255, 255)


def enlargement(width: int) -> int:
    """How many times an image of `width` pixels is enlarged."""
    return max(1, TILE_PX // width)


def loop_order(frames: int) -> list[int]:
    """Frames of an animation that runs forth and back without showing an end twice."""
    return [*range(frames), *range(frames - 2, 0, -1)]


def write_animation(path: Path, images: Tensor) -> None:
    """Writes a looping GIF of all views side by side.

    Args:
        path: the file.
        images: [V, F, 3, H, W] in [0, 1].
    """
    views, frames, _, height, width = images.shape
    scale = enlargement(width)
    size = (views * (width * scale + GAP_PX) - GAP_PX, height * scale + HEADER_PX)
    pages = []
    for frame in loop_order(frames):
        page = Image.new("RGB", size, _PAPER)
        for view in range(views):
            left = view * (width * scale + GAP_PX)
            page.paste(enlarged(images[view, frame], scale), (left, HEADER_PX))
            write_text(page, (left + 4, 3), f"view {view}")
        pages.append(page.quantize(256, dither=Image.Dither.NONE))
    pages[0].save(
        path, format="GIF", save_all=True, append_images=pages[1:], duration=FRAME_MS, loop=0
    )


def write_sheet(path: Path, images: Tensor, title: str) -> None:
    """Writes a PNG of all images, rows views, columns frames, labelled.

    Args:
        path: the file.
        images: [V, F, 3, H, W] in [0, 1].
        title: one line above the columns' labels.
    """
    views, frames, _, height, width = images.shape
    scale = enlargement(width)
    sheet = Image.new("RGB", sheet_size(views, frames, height, width), _PAPER)
    write_text(sheet, (GAP_PX, 3), title)
    for frame in range(frames):
        left = MARGIN_PX + frame * (width * scale + GAP_PX)
        write_text(sheet, (left + 4, HEADER_PX + 3), f"frame {frame}")
        for view in range(views):
            top = 2 * HEADER_PX + view * (height * scale + GAP_PX)
            write_text(sheet, (GAP_PX, top + height * scale // 2 - 8), f"view {view}")
            sheet.paste(enlarged(images[view, frame], scale), (left, top))
    sheet.save(path, format="PNG")


def sheet_size(views: int, frames: int, height: int, width: int) -> tuple[int, int]:
    """Width and height of a sheet in pixels."""
    scale = enlargement(width)
    return (
        MARGIN_PX + frames * (width * scale + GAP_PX),
        2 * HEADER_PX + views * (height * scale + GAP_PX),
    )


def difference_factor(difference: Tensor) -> int:
    """The largest round factor that brightens `difference` [...] without passing 1."""
    peak = float(difference.max())
    return max((factor for factor in FACTORS if factor * peak <= 1.0), default=1)


def write_difference(path: Path, turbo: Tensor, baseline: Tensor) -> int:
    """Writes the absolute difference as a sheet, brightened, with the factor written on it.

    Args:
        path: the file.
        turbo: [V, F, 3, H, W] in [0, 1].
        baseline: the same.

    Returns:
        The factor.
    """
    difference = (turbo - baseline).abs()
    peak = float(difference.max())
    factor = difference_factor(difference)
    title = f"|turbo - baseline| x {factor}; the largest difference is {peak * 255:.2f} of 255"
    write_sheet(path, difference * factor, "turbo = baseline, exactly" if peak == 0 else title)
    return factor


def enlarged(image: Tensor, scale: int) -> Image.Image:
    """An image [3, H, W] in [0, 1] with every pixel `scale` times as wide and high."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels.repeat(scale, 0).repeat(scale, 1)))


def write_text(page: Image.Image, place: tuple[int, int], text: str) -> None:
    """Write one line of text whose upper left corner is at `place`."""
    ImageDraw.Draw(page).text(place, text, fill=_INK, font=ImageFont.load_default(size=14))
