"""The asset before and after, moving: sprites within the page, driven by its style alone.

A sprite holds all images of one asset, rows views, columns frames. Each tile shows one image of it
and the style's animation moves on to the next; radio buttons stop it at a frame or show one view.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from turbo4d.tools.calibration.page_parts import absent
from turbo4d.tools.pictures import FACTORS, FRAME_MS, loop_order

WIDEST_PX = 256  # larger images are shown smaller, so that the page stays a file one can send

_TITLES = {
    "before": "uncached, every step computed",
    "after": "turbo4d, this plan",
}


def asset_section(images: Mapping[str, Tensor] | None) -> str:
    """The moving asset and its controls.

    Args:
        images: "before" and "after" of shape [V, F, 3, H, W] in [0, 1]; None where there is none.

    Raises:
        ValueError: where the two differ in shape.
    """
    if not images:
        return absent("The asset before and after")
    before, after = images["before"].detach().float().cpu(), images["after"].detach().float().cpu()
    if before.shape != after.shape or before.dim() != 5:
        raise ValueError(
            f"calibration page: images before and after have shapes {tuple(before.shape)} and "
            f"{tuple(after.shape)}; wanted the same [V, F, 3, H, W]."
        )
    difference = (after - before).abs()
    factor = _brightening(difference)
    sheets = {"before": before, "after": after, "difference": difference * factor}
    views, frames, _, height, width = before.shape
    titles = {**_TITLES, "difference": f"|difference| x {factor}"}
    style = _style(sheets, views, frames, height / width)
    note = (
        f"Images of {width} x {height} pixels, {views} views of {frames} frames"
        + (f", shown at {WIDEST_PX} pixels' width" if width > WIDEST_PX else "")
        + f". The largest difference is {255 * float(difference.max()):.1f} of 255."
    )
    return (
        f'<style>{style}</style><div class="asset">{_controls(views, frames)}'
        f"{_stage(titles, views)}{_printed(titles)}</div>"
        f'<p class="note">{html.escape(note)}</p>'
    )


def _brightening(difference: Tensor) -> int:
    """A round factor at which one value in two hundred may become too bright to tell apart."""
    bright = float(np.quantile(difference.numpy(), 1 - 1 / 200))
    return max((factor for factor in FACTORS if factor * bright <= 1.0), default=1)


def _controls(views: int, frames: int) -> str:
    """Radio buttons: they stand before what they control, which the style needs."""
    frame = [("play", "play"), ("pause", "pause")]
    frame += [(f"frame-{at}", f"frame {at}") for at in range(frames)]
    view = [("view-all", "all views"), *((f"view-{at}", f"view {at}") for at in range(views))]
    return _choice("motion", frame) + "<br>" + _choice("views", view)


def _choice(group: str, options: Sequence[tuple[str, str]]) -> str:
    return "".join(
        f'<input type="radio" name="{group}" id="{name}"{" checked" if not at else ""}>'
        f'<label for="{name}">{text}</label>'
        for at, (name, text) in enumerate(options)
    )


def _stage(titles: Mapping[str, str], views: int) -> str:
    rows = "".join(
        f'<div class="row view-{view}"><span>view {view}</span>'
        + "".join(
            f'<div class="tile {name} v{view}" role="img" '
            f'aria-label="{html.escape(title)}, view {view}"></div>'
            for name, title in titles.items()
        )
        + "</div>"
        for view in range(views)
    )
    heads = "".join(f"<b>{html.escape(title)}</b>" for title in titles.values())
    return f'<div class="stage"><div class="row head"><span></span>{heads}</div>{rows}</div>'


def _printed(titles: Mapping[str, str]) -> str:
    """All images at once, for paper."""
    return (
        '<div class="sheets">'
        + "".join(
            f"<p>{html.escape(title)}: rows views, columns frames</p>"
            f'<div class="sheet {name}"></div>'
            for name, title in titles.items()
        )
        + "</div>"
    )


def _style(sheets: Mapping[str, Tensor], views: int, frames: int, aspect: float) -> str:
    place = [100 * at / max(frames - 1, 1) for at in range(frames)]
    order = loop_order(frames)
    keys = "".join(
        f"{100 * at / len(order):.4f}% {{ background-position-x: {place[frame]:.4f}%; }} "
        for at, frame in enumerate(order)
    )
    rules = [f".{name} {{ background-image: url({_sprite(of)}); }}" for name, of in sheets.items()]
    rules += [
        f".v{view} {{ background-position-y: {100 * view / max(views - 1, 1):.4f}%; }}\n"
        f"#view-{view}:checked ~ .stage .row:not(.view-{view}, .head) {{ display: none; }}"
        for view in range(views)
    ]
    rules += [
        f"#frame-{frame}:checked ~ .stage .tile {{ animation: none; "
        f"background-position-x: {at:.4f}%; }}"
        for frame, at in enumerate(place)
    ]
    motion = (
        f"animation: frames {FRAME_MS * len(order)}ms step-end infinite; " if frames > 1 else ""
    )
    return (
        f"@keyframes frames {{ {keys}100% {{ background-position-x: {place[0]:.4f}%; }} }}\n"
        f".tile {{ aspect-ratio: {1 / aspect:.5f}; {motion}"
        f"background-size: {100 * frames}% {100 * views}%; }}\n"
        f".sheet {{ aspect-ratio: {frames / (views * aspect):.5f}; background-size: 100% 100%; }}\n"
        + "\n".join(rules)
    )


def _sprite(images: Tensor) -> str:
    """All images as one PNG, as a data URI."""
    width = images.shape[-1]
    if width > WIDEST_PX:
        size = (round(images.shape[-2] * WIDEST_PX / width), WIDEST_PX)
        small = torch.nn.functional.interpolate(images.flatten(0, 1), size=size, mode="area")
        images = small.unflatten(0, images.shape[:2])
    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 3, 1, 4, 2)
    sheet = pixels.flatten(2, 3).flatten(0, 1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(sheet)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


ASSET_STYLE = """
.asset input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.asset label { display: inline-block; font-size: 13px; padding: 2px 9px; margin: 0 4px 5px 0;
               border: 1px solid var(--line); border-radius: 5px; cursor: pointer; }
.asset input:checked + label { background: var(--ink); color: var(--paper); }
.asset input:focus-visible + label { outline: 2px solid var(--c0); outline-offset: 1px; }
.stage .row { display: grid; gap: 6px; align-items: center; margin-bottom: 6px;
              grid-template-columns: 3.6em repeat(3, minmax(0, var(--tile, 190px))); }
.stage .row > * { font-size: 13px; font-weight: normal; }
.stage .row > span { color: var(--faint); }
.tile { image-rendering: pixelated; outline: 1px solid var(--line); background-repeat: no-repeat; }
.asset input[id^="view-"]:not(#view-all):checked ~ .stage { --tile: 300px; }
#pause:checked ~ .stage .tile { animation-play-state: paused; }
.sheets { display: none; } .sheet { image-rendering: pixelated; max-width: 100%; }
@media (prefers-reduced-motion: reduce) {
  .stage:not(:hover) .tile { animation-play-state: paused; } }
@media print { .stage, .asset input, .asset label, .asset br { display: none; }
               .sheets { display: block; } .sheet { max-width: 440px; break-inside: avoid; } }
"""
