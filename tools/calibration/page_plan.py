"""The plan itself: its picture of steps x regions, its variants, its steps one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from turbo4d.compiler.explain_text import ranges
from turbo4d.runtime.plan import Plan, RegionInfo, Row
from turbo4d.runtime.plan_text import plan_lines
from turbo4d.tools.calibration.page_axes import number
from turbo4d.tools.calibration.page_parts import ABSENT, paragraph, seconds, size
from turbo4d.tools.page_style import table
from turbo4d.tools.plan_picture import plan_table

_NAMES = 4  # regions of one action that are named, the rest counted
_WORDS = (
    "A step is one denoising step, 0 the noisiest; its level is the noise level the model is fed. "
    "A region is a part of the graph: a block around one attention, a chain of blocks, a level of "
    "the UNet, the core between its first and its last convolution, or all of it. A slot holds "
    "what a region gave at an earlier step; a region that is reused takes that and is not "
    "executed. Steps that do the same and write the same slots share one graph, a variant."
)


def plan_of(report: Mapping[str, Any]) -> Plan:
    """The report's plan."""
    return Plan.from_json(json.dumps(report["plan"]))


def plan_section(report: Mapping[str, Any]) -> str:
    """The plan as a picture, in letters, by variant and by step."""
    plan = plan_of(report)
    regions = [
        RegionInfo(
            each["name"],
            each["kind"],
            each["parent"],
            residual=each["kind"] in ("block", "chain"),
            slot_bytes=each["slot_bytes"],
            flops=each["flops"],
        )
        for each in report["regions"]
    ]
    slots = _slots(plan, report)
    parts = [
        paragraph(_WORDS),
        plan_table(plan_lines(plan, regions), _notes(plan, slots)),
        _letters(report),
    ]
    steps = "".join(_steps(plan, stream, slots[stream], report) for stream in plan.streams)
    parts.append(_variants(plan, slots))
    parts.append(f"<details><summary>Step by step</summary>{steps}</details>")
    return "".join(parts)


def _slots(plan: Plan, report: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]] | None]:
    """The slots of each stream; None where the report does not hold them."""
    slots = (report.get("memory") or {}).get("slots")
    return {
        stream: None
        if slots is None
        else [slot for slot in slots if slot.get("stream", stream) == stream]
        for stream in plan.streams
    }


def _letters(report: Mapping[str, Any]) -> str:
    moves = {move["letter"]: move["name"] for move in report.get("moves") or []}
    lines: list[str] = []
    for stream, letters in (report.get("letters") or {}).items():
        said = ", ".join(
            f"{letter} {moves.get(letter, 'unknown')}" for letter in sorted(set(letters))
        )
        lines.append(f"In letters, one a step, stream {stream}: {letters} ({said}).")
    return "".join(paragraph(line) for line in lines)


def _notes(
    plan: Plan, slots: Mapping[str, Sequence[Mapping[str, Any]] | None]
) -> dict[tuple[str, str, int], str]:
    """What a cell says under the pointer: its level, its action in full, the age of its slot."""
    notes: dict[tuple[str, str, int], str] = {}
    for stream, rows in plan.streams.items():
        for step, row in enumerate(rows):
            for region, action in (row or {}).items():
                ages = _ages(region, step, slots[stream]) if action.reads else []
                aged = f", slot {' and '.join(map(str, ages))} steps old" if ages else ""
                level = f"{plan.level_unit} {number(plan.levels[step])}"
                notes[stream, region, step] = f"{level}; {region}: {action}{aged}"
    return notes


def _ages(region: str, step: int, slots: Sequence[Mapping[str, Any]] | None) -> list[int]:
    return sorted(
        step - slot["written"]
        for slot in slots or ()
        if slot["region"] == region and slot["written"] < step <= slot["last_read"]
    )


def _does(row: Row) -> str:
    """The actions of a row in words, regions of one action together."""
    if row is None:
        return "not run"
    together: dict[str, list[str]] = {}
    for region, action in row.items():
        together.setdefault(str(action), []).append(region)
    said = [
        f"{action} {', '.join(names[:_NAMES])}"
        + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")
        for action, names in together.items()
    ]
    return "; ".join(said) or "compute everything"


def _written(step: int, slots: Sequence[Mapping[str, Any]] | None) -> tuple[str, ...]:
    return tuple(sorted({slot["region"] for slot in slots or () if slot["written"] == step}))


def _listed(names: Sequence[str], slots: Sequence[Mapping[str, Any]] | None) -> str:
    if slots is None:
        return ABSENT
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more or "none"


def _variants(plan: Plan, slots: Mapping[str, Sequence[Mapping[str, Any]] | None]) -> str:
    rows: list[tuple[str, ...]] = []
    for stream, of in plan.streams.items():
        steps: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for step, row in enumerate(of):
            if row is not None:
                # One graph serves every order and all weights of a reuse.
                key = (
                    json.dumps({k: str(v.built) for k, v in row.items()}),
                    _written(step, slots[stream]),
                )
                steps.setdefault(key, []).append(step)
        several = f"{stream}: " if len(plan.streams) > 1 else ""
        rows += [
            (f"{several}{ranges(at)}", _kind(of[at[0]]), _listed(writes, slots[stream]))
            for (_, writes), at in steps.items()
        ]
    return f"<h3>Variants: {len(rows)} of at most {plan.max_variants}</h3>" + table(
        ("steps", "action", "slots written"), rows
    )


def _kind(row: Row) -> str:
    """What a variant does; the weights are the steps' own."""
    fitted = any(action.mix for action in (row or {}).values())
    plain = None if row is None else {name: action.built for name, action in row.items()}
    return _does(plain) + (" by fitted weights" if fitted else "")


def _steps(
    plan: Plan, stream: str, slots: Sequence[Mapping[str, Any]] | None, report: Mapping[str, Any]
) -> str:
    """One row a step: level, action, slots, bytes, seconds."""
    live = (report.get("memory") or {}).get("live_bytes_by_step") or []
    predicted = (report.get("predicted") or {}).get("seconds_by_step") or []
    measured = (report.get("measured") or {}).get("seconds_by_step") or []
    rows = [
        (
            str(step),
            number(float(f"{plan.levels[step]:.4g}")),
            _does(row),
            _listed(_written(step, slots), slots),
            size(_at(live, step)),
            seconds(_at(predicted, step)),
            seconds(_at(measured, step)),
        )
        for step, row in enumerate(plan.rows(stream))
    ]
    head = (
        "step",
        f"level ({plan.level_unit})",
        "action",
        "slots written",
        "slots held",
        "predicted",
        "measured",
    )
    title = f"<h3>Stream {stream}</h3>" if len(plan.streams) > 1 else ""
    return title + table(head, rows)


def _at(values: Sequence[Any], step: int) -> Any:
    return values[step] if step < len(values) else None
