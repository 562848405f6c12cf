"""What a reader needs to trust the figures: versions, machine, bounds, time spent, notes."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from turbo4d.tools.calibration.page_parts import ABSENT, decibels, finite, seconds, size
from turbo4d.tools.page_style import table

_FACTS = (
    "model",
    "fidelity",
    "weights",
    "weights_sha256",
    "command",
    "device",
    "threads",
    "torch",
    "commit",
    "steps",
    "lowering",
    "dtype",
)

# What the cost model knows of the machine: its name in words, and how many of a unit it is.
_RATES: Mapping[str, tuple[str, float, str]] = {
    "matmul_flops": ("matmul rate", 1e-9, "GFLOP/s"),
    "bandwidth": ("memory bandwidth", 1e-9, "GB/s"),
    "launch_s": ("time of a call", 1e6, "µs"),
    "function_s": ("time of a function's evaluation", 1e9, "ns"),
    "group_s": ("time of a small group of an attention", 1e9, "ns"),
    "fresh_s": ("time of a fresh byte", 1e9, "ns"),
    "repacks": ("products repack their operands", 1, ""),
}


def tiles(report: Mapping[str, Any]) -> str:
    """The figures a reader looks for first."""
    measured, predicted = report.get("measured") or {}, report.get("predicted") or {}
    held, own = report.get("held_out") or {}, report.get("calibration") or {}
    bound = report.get("max_cache_bytes")
    speedup = measured.get("speedup")
    shown = [
        (
            f"{speedup:.2f}x" if finite(speedup) else ABSENT,
            f"speed-up: {seconds(measured.get('seconds'))} against "
            f"{seconds(measured.get('uncached_seconds'))} uncached",
        ),
        (
            decibels(held.get("mean_db")),
            f"mean PSNR on {_scenes(held, 'held-out')}, worst {decibels(held.get('worst_db'))}",
        ),
        (
            decibels(own.get("mean_db")),
            f"mean PSNR on {_scenes(own, 'calibration')}, worst {decibels(own.get('worst_db'))}",
        ),
        (
            decibels(report.get("target_db")),
            "target: the mean on the calibration scenes"
            + (
                f", the worst at most {decibels(report['worst_slack_db'])} below"
                if finite(report.get("worst_slack_db"))
                else ""
            ),
        ),
        (
            size(measured.get("cache_peak_bytes")),
            f"slots at their peak; predicted {size(predicted.get('cache_peak_bytes'))}, "
            + (f"bound {size(bound)}" if finite(bound) else "no bound asked"),
        ),
    ]
    return (
        '<div class="tiles">'
        + "".join(
            f"<div><b>{html.escape(big)}</b><span>{html.escape(small)}</span></div>"
            for big, small in shown
        )
        + "</div>"
    )


def _scenes(judged: Mapping[str, Any], kind: str) -> str:
    count = len(judged.get("scenes") or [])
    return f"{count} {kind} {'scene' if count == 1 else 'scenes'}"


def facts_section(report: Mapping[str, Any]) -> str:
    """Everything the figures depend on."""
    plan = report["plan"]
    rows = [(name.replace("_", " "), _said(report.get(name))) for name in _FACTS]
    rows += [
        ("plan", str(plan["name"])),
        ("plan's origin", str(plan.get("origin") or "not said")),
        ("model's fingerprint", str(plan["model"])),
        ("geometry", ", ".join(f"{name} {n}" for name, n in plan["geometry"].items())),
        ("variants at most", _said(report.get("max_variants"))),
        ("slots' age at most", f"{plan['max_age']} steps"),
        ("slots' storage", _storage(plan.get("storage") or {})),
        ("exact passes", "on" if plan.get("exact", True) else "off"),
    ]
    rows += [
        (f"machine: {_RATES[name][0] if name in _RATES else name}", _rate(name, value))
        for name, value in (report.get("machine") or {}).items()
    ]
    spent = report.get("seconds_spent") or {}
    total = sum(value for value in spent.values() if finite(value))
    times = [(str(name).replace("_", " "), seconds(value)) for name, value in spent.items()]
    notes = "".join(f"<li>{html.escape(str(note))}</li>" for note in report.get("notes") or [])
    return (
        f'<div class="facts">{table(("fact", "value"), rows)}</div>'
        "<h3>Time the calibration took</h3>"
        + table(("part", "time"), [*times, ("all", seconds(total) if spent else ABSENT)])
        + "<h3>Notes</h3>"
        + (f"<ul>{notes}</ul>" if notes else "<p>none</p>")
    )


def _storage(storage: Mapping[str, str]) -> str:
    kept = ", ".join(f"{region} {name}" for region, name in storage.items())
    return kept or "compute dtype"


def _rate(name: str, value: Any) -> str:
    if name not in _RATES or not finite(value):
        return _said(value)
    _, factor, unit = _RATES[name]
    return f"{value * factor:.4g} {unit}"


def _said(value: Any) -> str:
    if value is None:
        return "not said"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
