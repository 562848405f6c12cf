"""One setting of a rival's knob: the rows of a plan, or fewer steps, all computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from turbo4d.runtime.action import REUSE, Action
from turbo4d.runtime.plan import Plan, RegionInfo, Row
from turbo4d.tools.plan_rows import letters
from turbo4d.tools.rivals.signals import Signals

Rows = tuple[Row, ...]


@dataclass(frozen=True)
class Setting:
    """One point of a sweep.

    Args:
        system: whose policy.
        knob: its setting, in words; with the system it names the point.
        rows: what each step does, by what the scene's uncached run showed; a static policy looks at
            nothing. None for a run that computes every step.
        steps: of such a run.
        solver: likewise, a key of SOLVERS.
        plan: a whole plan, where the point is none of a rival's.
    """

    system: str
    knob: str
    rows: Callable[[Signals], Rows] | None = None
    steps: int = 0
    solver: str = "euler"
    plan: Plan | None = None

    @property
    def name(self) -> str:
        """Unique in a sweep."""
        return f"{self.system} | {self.knob}"


def static(system: str, knob: str, rows: Rows) -> Setting:
    """A setting whose rows are the same for every scene."""
    return Setting(system, knob, rows=lambda _: rows)


def reusing(computed: Sequence[bool], regions: Iterable[str], action: Action = REUSE) -> Rows:
    """Rows that compute a step, or act on these regions where it is not computed."""
    row = dict.fromkeys(regions, action)
    return tuple({} if cell else row for cell in computed)


def core_of(regions: Sequence[RegionInfo]) -> str:
    """The name of the core.

    Raises:
        ValueError: the network has none.
    """
    return _named(regions, "core")[0]


def levels_of(regions: Sequence[RegionInfo]) -> tuple[str, ...]:
    """The names of the levels, the outermost first."""
    return _named(regions, "level")


def chains_of(regions: Sequence[RegionInfo]) -> tuple[str, ...]:
    """The names of the chains."""
    return _named(regions, "chain")


def blocks_of(regions: Sequence[RegionInfo], kind: str = "") -> tuple[str, ...]:
    """The names of the blocks, all or those of one kind of attention, as their names end."""
    return tuple(name for name in _named(regions, "block") if name.endswith(kind))


def _named(regions: Sequence[RegionInfo], kind: str) -> tuple[str, ...]:
    found = tuple(region.name for region in regions if region.kind == kind)
    if not found:
        raise ValueError(f"rivals: the network has no {kind}; this policy needs one.")
    return found


def run_key(run: Plan | tuple[str, int]) -> str:
    """What tells one run from another: equal for plans that do the same, whoever made them.

    Args:
        run: a plan, or solver and steps of a run that computes each.
    """
    if not isinstance(run, Plan):
        return f"{run[0]}:{run[1]}"
    cells = {
        stream: [None if row is None else {name: str(act) for name, act in row.items()}
                 for row in rows]
        for stream, rows in sorted(run.streams.items())
    }  # fmt: skip
    text = json.dumps([cells, run.exact, dict(run.storage)], sort_keys=True)
    return f"{letters(run)}.{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def distinct(settings: Iterable[Setting], scenes: Sequence[Signals]) -> list[Setting]:
    """The settings without those that do on every one of some scenes what an earlier one does."""
    found: dict[str, Setting] = {}
    for setting in settings:
        did = setting.rows and [setting.rows(scene) for scene in scenes]
        text = json.dumps([_spelled(rows) for rows in did]) if did else setting.name
        found.setdefault(text, setting)
    return list(found.values())


def _spelled(rows: Rows) -> list[dict[str, str]]:
    return [{name: str(act) for name, act in (row or {}).items()} for row in rows]
