"""Draws the pictures of README.md: speed against fidelity, and a scene as each plan samples it.

The first is drawn from the stored report of `measure/rivals.py`; for the second, `nano` samples a
held-out scene here, with the presets and with as many uncached steps as take the same time.

Example:
    python tools/readme_pictures.py            # both
    python tools/readme_pictures.py --only pareto
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from turbo4d.models.metrics import psnr
from turbo4d.tools.asset import Asset, decode, image_size, prepare
from turbo4d.tools.fidelity import capped, object_mask
from turbo4d.tools.load_model import LoadedModel, load_model
from turbo4d.tools.pictures import enlarged, write_text
from turbo4d.tools.rivals.pareto import front
from turbo4d.tools.rivals.state import OURS
from turbo4d.tools.sampling import Turbo, sample_plain
from turbo4d.tools.scene_input import held_out_scene

RESULTS = Path(__file__).resolve().parent / "results"
PARETO, PARETO_PICTURE = RESULTS / "pareto-nano-v1.json", RESULTS / "pareto-nano-v1.png"
SCENE_PICTURE = RESULTS / "scene-nano-v1.png"
STEPS, SCENE, VIEW, FRAMES = 20, 3, 1, (0, 2, 4)
_CEILING_DB = 48.0  # nobody sees what lies above it
_TARGETS_DB = (30.0, 35.0, 40.0)
_MARKERS = {OURS: "o", "fewer steps, Euler": "s", "fewer steps, DPM-Solver++(2M)": "^"}
_OURS, _STEPS_INK, _GRID = "#b3261e", "#111111", "#dddddd"
_COLOURS = ("#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f")
_SCALE, _GAP, _HEADER = 3, 6, 44


def draw_pareto(report: Mapping[str, Any], path: Path) -> None:
    """A system's settings that no other of its own beats, as a line each.

    Args:
        report: of `measure/rivals.py`.
        path: of the PNG.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in report["pareto"] if row["seconds"] is not None]
    systems = sorted({row["system"] for row in rows}, key=lambda name: name != OURS)
    figure, axes = plt.subplots(figsize=(8.4, 4.6), dpi=160)
    for target in _TARGETS_DB:
        axes.axhline(target, color=_GRID, linewidth=1, zorder=0)
    colours = iter(_COLOURS)
    for system in systems:
        points = sorted(front([row for row in rows if row["system"] == system]),
                        key=lambda row: row["speedup"])  # fmt: skip
        steps = system.startswith("fewer steps")
        ink = _OURS if system == OURS else _STEPS_INK if steps else next(colours)
        axes.plot(
            [row["speedup"] for row in points],
            [min(row["psnr_mean_db"], _CEILING_DB) for row in points],
            color=ink,
            label=system,
            linestyle="--" if steps else "-",
            linewidth=2.6 if system == OURS else 1.2,
            marker="o"
            if system == OURS
            else "."
            if not steps
            else "s"
            if "Euler" in system
            else "^",
            markersize=7 if system == OURS else 5,
            zorder=3 if system == OURS else 2,
        )
    axes.set_xlabel("times as fast as the uncached run")
    axes.set_ylabel("PSNR in the object to the uncached run (dB)")
    axes.set_xlim(left=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def draw_scene(path: Path) -> None:
    """A view of a held-out scene over time, a column for each way of sampling it.

    Args:
        path: of the PNG.
    """
    model = load_model("nano", None, torch.float32, torch.device("cpu"))
    config = model.config
    scene = held_out_scene(SCENE, config.views or 1, config.frames or 1, image_size(model))
    asset = prepare(model, scene, seed=0)
    uncached = decode(model, sample_plain(model, asset, STEPS))
    columns: list[tuple[str, str, Tensor]] = [("uncached", f"{STEPS} steps", uncached)]
    if scene.truth is not None:
        columns.insert(0, ("the scene", "rendered", scene.truth))
    for plan in ("quality", "balanced", "fast"):
        shown = decode(model, Turbo(model, STEPS, {"plan": plan}).sample(asset))
        columns.append((f"turbo4d {plan}", _said(model, asset, shown, uncached), shown))
    few = decode(model, sample_plain(model, asset, 2))
    columns.append(("uncached, 2 steps", _said(model, asset, few, uncached), few))
    _sheet(columns).save(path)


def _said(model: LoadedModel, asset: Asset, shown: Tensor, uncached: Tensor) -> str:
    mask = object_mask(asset.scene, shown)
    return f"{capped(psnr(shown, uncached, mask=mask)):.1f} dB to uncached"


def _sheet(columns: Sequence[tuple[str, str, Tensor]]) -> Image.Image:
    _, _, height, width = columns[0][2][VIEW].shape
    across, down = width * _SCALE + _GAP, height * _SCALE + _GAP
    size = (len(columns) * across, _HEADER + len(FRAMES) * down)
    sheet = Image.new("RGB", size, (255, 255, 255))
    for index, (name, said, images) in enumerate(columns):
        left = index * across
        write_text(sheet, (left + _GAP, 4), name)
        write_text(sheet, (left + _GAP, 22), said)
        for row, frame in enumerate(FRAMES):
            sheet.paste(enlarged(images[VIEW, frame], _SCALE), (left, _HEADER + row * down))
    return sheet


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draw the pictures of README.md.")
    parser.add_argument("--only", choices=("pareto", "scene"))
    only = parser.parse_args(argv).only
    if only != "scene":
        draw_pareto(json.loads(PARETO.read_text()), PARETO_PICTURE)
    if only != "pareto":
        draw_scene(SCENE_PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
