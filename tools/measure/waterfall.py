"""Measures every granularity on nano, each alone and then one upon another: the waterfall.

Alone, a technique acts at the steps at which the preset `balanced` would reuse regions of its kind:
tokens are pruned, blocks, chains, levels or the core reused, chains bypassed. Combined, each row
adds one technique to the row before it.

Example:
    python tools/measure/waterfall.py --scenes 0-4 --out tools/results/waterfall-nano-v1.json
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from turbo4d.runtime.action import BYPASS, Action
from turbo4d.runtime.plan import Plan, Row
from turbo4d.tools.measure.regions import preset_plan
from turbo4d.tools.plan_rows import Way, command
from turbo4d.tools.sampling import Turbo

_BASE = "balanced"
_KEEP = 0.5
_MAX_VARIANTS = 12


def ways_of(turbo: Turbo) -> dict[str, Way]:
    """Name -> way, in the order of the table."""
    prunable = [region.name for region in turbo.regions if region.relevance is not None]
    prune = dict.fromkeys(prunable, Action("prune", keep=_KEEP))
    bypassed = [region.name for region in turbo.regions if region.name == "middle.chain"]

    def alone(kind: str) -> Plan:
        return preset_plan(turbo, _BASE, (kind,))

    combined = preset_plan(turbo, _BASE, ("core", "level"))
    pruned = _changed(combined, lambda row, step: prune if step in _between(combined) else row)
    left_out = _changed(
        pruned,
        lambda row, step: _without(row, bypassed) if step in _between(combined) else row,
    )
    return {
        "exact passes": Way(preset_plan(turbo, "exact")),
        f"token: prune, keep {_KEEP:.0%}": Way(_acting(alone("block"), lambda _: prune)),
        "block: reuse": Way(alone("block")),
        "chain: bypass": Way(_acting(alone("chain"), lambda row: dict.fromkeys(row, BYPASS))),
        "chain: reuse": Way(alone("chain")),
        "level: reuse": Way(alone("level")),
        "core: reuse": Way(alone("core")),
        "exact + core reuse": Way(alone("core")),
        "... + level reuse": Way(combined),
        "... + token pruning": Way(pruned),
        "... + chain bypass": Way(left_out),
        "exact + core + level, adaptive": Way(combined, adaptive=True),
    }


def _between(plan: Plan) -> set[int]:
    """Every second of the computed steps after a computed one: their slots are one step old."""
    rows = plan.streams["main"]
    found: set[int] = set()
    for step in range(1, len(rows)):
        if rows[step] == {} and rows[step - 1] == {} and step - 1 not in found:
            found.add(step)
    return found


def _without(row: Row, names: Sequence[str]) -> Row:
    """The row with these chains left out, and nothing named inside them."""
    kept = {
        name: action
        for name, action in (row or {}).items()
        if not any(name.startswith(chain.removesuffix("chain")) for chain in names)
    }
    return {**kept, **dict.fromkeys(names, BYPASS)}


def _acting(plan: Plan, act: Callable[[Mapping[str, Action]], Mapping[str, Action]]) -> Plan:
    """The plan with other actions where it acts."""
    return _changed(plan, lambda row, _: act(row) if row else row)


def _changed(plan: Plan, act: Callable[[Row, int], Row]) -> Plan:
    rows = tuple(act(row, step) for step, row in enumerate(plan.streams["main"]))
    return dataclasses.replace(plan, streams={"main": rows}, max_variants=_MAX_VARIANTS)


def _line(row: Mapping[str, Any]) -> str:
    flops = "" if row["flops"] is None else f"{row['flops'] / 1e12:6.3f} TFLOP"
    return (
        f"{row['name']:32} {row['ms_per_step']:7.1f} ms/step {row['speedup']:6.2f}x "
        f"{flops:>13} {row['cache_peak_bytes'] / 2**20:6.1f} MiB {row['psnr_mask_db']:7.2f} dB"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return command(__doc__, ways_of, _line, argv)


if __name__ == "__main__":
    sys.exit(main())
