"""A row of a benchmark: what is run, and what came out of it."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class RowSpec:
    """What one process of a benchmark runs. All of it is JSON; two rows differ in their `name`.

    Args:
        suite: a key of `suite.SUITES`.
        group: rows of one group are run in turn; the first of them is what the others are
            compared with.
        system: `eager`, `inductor`, `turbo4d:<preset>`, `policy:<name>`, `steps:<n>:<solver>` or
            `peer:<package>`.
        plan: of turbo4d or of a policy; "" where there is none.
        lowering: what runs the graphs; "" where nothing of ours does.
        label: what else tells the row from its like, such as the model or an allocator's setting.
        settings: what the suite's `prepare` wants to know besides.
        environment: variables of the row's process, set before it starts.
        warmups: runs after the first that are not timed.
        runs: timed runs.
    """

    suite: str
    group: str
    system: str
    plan: str = ""
    lowering: str = ""
    label: str = ""
    settings: Settings = field(default_factory=dict[str, Any])
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    warmups: int = 1
    runs: int = 3

    @property
    def name(self) -> str:
        """Unique in a suite; what --rows is matched with."""
        words = (self.group, self.system, self.lowering, self.label)
        return "/".join(word for word in words if word)

    @property
    def digest(self) -> str:
        """Of everything that the row does: equal for rows that run the same."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> RowSpec:
        return RowSpec(**found)


@dataclass(frozen=True)
class RowResult:
    """What a row's process measured.

    Args:
        spec: the row.
        seconds: of each timed run.
        baseline: of the group's first row, in the same rounds; empty for that row itself.
        first_call_s: of the first run, which compiles.
        floor_bytes: resident before the first run, at most.
        peak_bytes: resident after all runs, at most; the suite's facts may say it of a GPU.
        facts: what the suite says of the row: psnr_db, psnr_mask_db, ssim, gt_psnr_db, events,
            graph_breaks, recompiles, and whatever else. A fact replaces a field of its name.
        error: a sentence where the row could not run.
        commit: of the checkout that ran it.
    """

    spec: RowSpec
    seconds: tuple[float, ...] = ()
    baseline: tuple[float, ...] = ()
    first_call_s: float | None = None
    floor_bytes: int | None = None
    peak_bytes: int | None = None
    facts: Settings = field(default_factory=dict[str, Any])
    error: str | None = None
    commit: str | None = None

    @property
    def latency_s(self) -> float | None:
        """The median."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def compile_s(self) -> float | None:
        """The first run less a later one."""
        if self.first_call_s is None or self.latency_s is None:
            return None
        return max(0.0, self.first_call_s - self.latency_s)

    def to_json(self) -> dict[str, Any]:
        """The row of a report: the contract's fields first, and all else that is known."""
        spec, latency = self.spec, self.latency_s
        baseline = statistics.median(self.baseline) if self.baseline else None
        facts = {name: None for name in QUALITY} | dict(self.facts)
        compared = baseline is not None and latency is not None and latency > 0
        row = {
            "suite": spec.suite,
            "system": spec.system,
            "plan": spec.plan,
            "lowering": spec.lowering,
            "latency_s": _digits(latency),
            "latency_spread": [_digits(min(self.seconds)), _digits(max(self.seconds))]
            if self.seconds
            else None,
            "peak_bytes": self.peak_bytes,
            "compile_s": _digits(self.compile_s),
            **facts,
            "error": self.error,
            "group": spec.group,
            "label": spec.label,
            "name": spec.name,
            "baseline_s": _digits(baseline),
            "speedup": _digits(baseline / latency) if compared and baseline and latency else None,
            "first_call_s": _digits(self.first_call_s),
            "floor_bytes": self.floor_bytes,
            "runs": len(self.seconds),
            "seconds": [_digits(each) for each in self.seconds],
            "settings": dict(spec.settings),
            "environment": dict(spec.environment),
            "digest": spec.digest,
            "commit": self.commit,
        }
        return row | {name: facts[name] for name in row.keys() & facts.keys()}


QUALITY: Sequence[str] = ("psnr_db", "psnr_mask_db", "ssim", "gt_psnr_db")


def _digits(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.5g}")
