"""report.json: the figures of a comparison, with everything needed to repeat it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from turbo4d.tools.comparison import Comparison
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.run_facts import facts_of, facts_of_session

SCHEMA_VERSION = 1

# Flat field -> where a scene's row holds it.
_FLAT: Mapping[str, tuple[str, ...]] = {
    "speedup": ("speedup",),
    "baseline_s": ("baseline", "seconds"),
    "turbo_s": ("turbo", "seconds"),
    "psnr_mask_db": ("turbo", "psnr_mask_db"),
    "psnr_db": ("turbo", "psnr_db"),
    "ssim": ("turbo", "ssim"),
    "psnr_min_view_db": ("turbo", "psnr_min_view_db"),
    "gt_psnr_mask_baseline_db": ("baseline", "gt_psnr_mask_db"),
    "gt_psnr_mask_turbo_db": ("turbo", "gt_psnr_mask_db"),
    "gt_psnr_baseline_db": ("baseline", "gt_psnr_db"),
    "gt_psnr_turbo_db": ("turbo", "gt_psnr_db"),
}


def build_report(
    model: LoadedModel, found: Comparison, asked: Mapping[str, Any], device: torch.device
) -> dict[str, Any]:
    """The report; every flat figure is the median over the scenes, whose rows follow.

    Args:
        model: that was sampled.
        found: by `compare`.
        asked: the call's plan, adaptive, lowering, dtype, seed, steps, runs, regions.
        device: of the network.
    """
    rows = [result.row for result in found.scenes]
    controls = {solver: _control(rows, solver, found) for solver in rows[0]["controls"]}
    turbo_s = _median(rows, ("turbo", "seconds"))
    better = controls[found.control_solver]
    known = found.scenes[0].asset.scene.truth is not None and model.shows_scenes
    return {
        "schema_version": SCHEMA_VERSION,
        "scene": rows[0]["scene"],
        **facts_of(model, asked, device),
        **{field: _median(rows, path) for field, path in _FLAT.items()},
        "baseline_spread_s": _spread(rows, "baseline"),
        "turbo_spread_s": _spread(rows, "turbo"),
        "compile_s": max(0.0, found.first_turbo_s - (turbo_s or 0.0)),
        "trivial_psnr_mask_db": _trivial(rows, "gt_psnr_mask_db"),
        "trivial_psnr_db": _trivial(rows, "gt_psnr_db"),
        "gt_reason": None if known else _no_truth(model),
        "control_solver": found.control_solver,
        "control_steps": found.control_steps,
        "control_s": better["seconds"],
        "control_psnr_mask_db": better["psnr_mask_db"],
        "control_psnr_db": better["psnr_db"],
        "controls": controls,
        "whole_step": _whole_step(rows, found),
        **facts_of_session(found.session),
        "scenes": rows,
    }


def _control(rows: Sequence[Mapping[str, Any]], solver: str, found: Comparison) -> dict[str, Any]:
    fields = ("seconds", "psnr_mask_db", "psnr_db", "ssim", "psnr_min_view_db",
              "gt_psnr_mask_db", "gt_psnr_db")  # fmt: skip
    figures = {field: _median(rows, ("controls", solver, field)) for field in fields}
    return {"steps": found.control_steps, **figures}


def _whole_step(rows: Sequence[Mapping[str, Any]], found: Comparison) -> dict[str, Any] | None:
    """Whole-step reuse at turbo's PSNR; None where the plan reuses whole steps itself."""
    if found.whole_step_computed is None:
        return None
    fields = ("speedup", "seconds", "psnr_mask_db", "psnr_db")
    figures = {field: _median(rows, ("whole_step", field)) for field in fields}
    return {"computed_steps": found.whole_step_computed, **figures}


def _no_truth(model: LoadedModel) -> str:
    if not model.shows_scenes:
        return f"model {model.name!r} has no trained autoencoder, so its sample shows no scene"
    return "the input is a folder of images, whose other views are not known"


def _trivial(rows: Sequence[Mapping[str, Any]], field: str) -> dict[str, float | None] | None:
    names = rows[0]["trivial"]
    return {name: _median(rows, ("trivial", name, field)) for name in names} or None


def _median(rows: Sequence[Mapping[str, Any]], path: Sequence[str]) -> float | None:
    """Median over the scenes of one figure; None where it was not measured."""
    values = []
    for row in rows:
        value: Any = row
        for key in path:
            value = value[key]
        if value is None:
            return None
        values.append(value)
    return statistics.median(values)


def _spread(rows: Sequence[Mapping[str, Any]], side: str) -> list[float]:
    return [
        min(row[side]["fastest_s"] for row in rows),
        max(row[side]["slowest_s"] for row in rows),
    ]
