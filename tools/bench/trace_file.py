"""A trace that Perfetto opens: variants, the regions within, and the calls within those.

The format is Chrome's "Trace Event Format": complete events ("X") with microseconds. What lies
within another on one track is drawn beneath it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from turbo4d.tools.bench.profiling import Call, VariantProfile

# Eighths of a microsecond are whole nanoseconds and exact as binary numbers: a viewer that counts
# in nanoseconds finds every slice within the one around it.
_EIGHTHS = 8e6


def trace_of(profiles: Sequence[VariantProfile], title: str) -> dict[str, Any]:
    """The trace as plain values, one track for each variant.

    Args:
        profiles: one per variant.
        title: of the whole.
    """
    events: list[dict[str, Any]] = [_named("process_name", title, 0)]
    for track, profile in enumerate(profiles, 1):
        events.append(_named("thread_name", f"{profile.name} ({profile.steps} steps)", track))
        events.append({"name": "thread_sort_index", "ph": "M", "pid": 1, "tid": track,
                       "args": {"sort_index": track}})  # fmt: skip
        events += _slices(profile, track)
    return {"displayTimeUnit": "ms", "traceEvents": events}


def write_trace(profiles: Sequence[VariantProfile], title: str, path: Path) -> None:
    """Writes the trace under a temporary name, then renames it."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(trace_of(profiles, title)))
    os.replace(temporary, path)


def _slices(profile: VariantProfile, track: int) -> list[dict[str, Any]]:
    """The calls, and around each run of calls of one region a slice of its own."""
    found: list[dict[str, Any]] = []  # what lies within another stands behind it
    open_: list[dict[str, Any]] = []
    now_s = 0.0
    for call in profile.calls:
        path = (profile.name, *call.path)
        shared = 0
        while shared < min(len(path), len(open_)) and open_[shared]["name"] == path[shared]:
            shared += 1
        del open_[shared:]
        for name in path[shared:]:
            open_.append(_slice(name, "region", now_s, 0.0, track, {}))
            found.append(open_[-1])
        found.append(_slice(call.op, call.kind, now_s, call.seconds, track, _told(call)))
        now_s += call.seconds
        for around in open_:
            around["dur"] = _us(now_s) - around["ts"]
    return found


def _told(call: Call) -> dict[str, Any]:
    return {"node": call.name, "sort": call.sort, "flops": call.flops, "bytes": call.size_bytes}


def _slice(
    name: str, category: str, begun_s: float, took_s: float, track: int, args: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name, "cat": category, "ph": "X", "pid": 1, "tid": track,
        "ts": _us(begun_s), "dur": _us(begun_s + took_s) - _us(begun_s), "args": args,
    }  # fmt: skip


def _us(seconds: float) -> float:
    return round(seconds * _EIGHTHS) / 8


def _named(what: str, name: str, track: int) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 1, "tid": track, "args": {"name": name}}
