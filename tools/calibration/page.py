"""The report of a calibration as one HTML file: it opens offline, in light and dark, and prints."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from turbo4d.tools.calibration.page_asset import ASSET_STYLE, asset_section
from turbo4d.tools.calibration.page_drift import drift_section
from turbo4d.tools.calibration.page_facts import facts_section, tiles
from turbo4d.tools.calibration.page_memory import memory_section
from turbo4d.tools.calibration.page_pareto import pareto_section
from turbo4d.tools.calibration.page_parts import PARTS_STYLE, decibels
from turbo4d.tools.calibration.page_plan import plan_of, plan_section
from turbo4d.tools.calibration.page_prediction import frontier_section, prediction_section
from turbo4d.tools.calibration.page_quality import quality_section
from turbo4d.tools.calibration.page_series import SERIES_STYLE
from turbo4d.tools.page_style import document, section
from turbo4d.tools.plan_picture import PLAN_STYLE

_STYLE = PLAN_STYLE + SERIES_STYLE + PARTS_STYLE + ASSET_STYLE


def page(report: Mapping[str, Any], images: Mapping[str, Tensor] | None = None) -> str:
    """The page.

    Args:
        report: of the calibration, as plan.report.json holds it; its plan, its regions and their
            parts must be there, and what else is missing is said to be not measured.
        images: "before", the uncached sample, and "after", the plan's, of shape [V, F, 3, H, W]
            in [0, 1].

    Raises:
        PlanError: the report's plan is none.
        ValueError: the two images differ in shape.
    """
    plan = plan_of(report)
    unit = plan.level_unit
    model = report.get("model")
    named = f"model {plan.model[:12]}" if model in (None, plan.model) else model
    title = (
        f"calibrated plan {plan.name} of {named}, {plan.steps} steps, "
        f"target {decibels(report.get('target_db'))}"
    )
    sections = (
        ("asset", "The asset before and after", asset_section(images)),
        ("plan", "Plan: steps x regions", plan_section(report)),
        ("pareto", "Latency against PSNR", pareto_section(report)),
        ("quality", "PSNR by scene, view and frame", quality_section(report)),
        ("drift", "Drift and its price", drift_section(report, unit)),
        ("prediction", "Predicted against measured", prediction_section(report, unit)),
        ("frontier", "What each error budget costs", frontier_section(report)),
        ("memory", "Slots in memory", memory_section(report, unit)),
        ("facts", "Facts and notes", facts_section(report)),
    )
    links = " ".join(f'<a href="#{name}">{html.escape(text)}</a>' for name, text, _ in sections)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        tiles(report),
        f"<nav>{links}</nav>",
        *(section(text, body, name) for name, text, body in sections),
    ]
    return document(title, parts, _STYLE)
