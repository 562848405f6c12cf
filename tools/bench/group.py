"""Rows that are compared: each in its own process, told to run in turn while the others sleep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.bench.running import Opens, Running, Say
from turbo4d.tools.bench.store import Store

FollowUps = Callable[[Sequence[RowResult]], Sequence[RowSpec]]
_MEMINFO = Path("/proc/meminfo")
_SPARE = 1.5  # times the largest process so far must be free for one more


class Group:
    """Runs the rows of a group in batches; its first row, the baseline, takes part in each.

    Args:
        store: takes the rows.
        opens: starts the process of a row.
        together: processes that may be alive at once, the baseline's among them.
        commit: of the checkout.
        say: told what is going on.
    """

    def __init__(
        self, store: Store, opens: Opens, together: int, commit: str | None, say: Say
    ) -> None:
        self._store, self._opens, self._together = store, opens, together
        self._commit, self._say = commit, say
        self._alive: list[Running] = []
        self._largest = 0

    def run(self, specs: Sequence[RowSpec], follow_ups: FollowUps) -> list[RowResult]:
        """Measure the rows that the store does not hold, and those that these call for.

        Args:
            specs: of one group, the baseline first.
            follow_ups: of the rows so far, without the baseline.

        Returns:
            All rows of the group in order.
        """
        first, wanted = specs[0], list(specs[1:])
        try:
            baseline = self._batches(first, wanted, None)
            asked = [spec for spec in follow_ups(self._kept(wanted)) if spec not in wanted]
            baseline = self._batches(first, asked, baseline)
            if baseline is None and self._store.get(first) is None:
                baseline = self._begin(first)
            if baseline is not None:
                for turn in range(len(baseline.seconds), first.runs):
                    baseline.run(turn)
                self._finish(baseline)
        finally:
            for row in self._alive:
                row.kill()
        return self._kept([first, *wanted, *asked])

    def _kept(self, specs: Sequence[RowSpec]) -> list[RowResult]:
        found = (self._store.get(spec) or self._store.failed(spec) for spec in specs)
        return [row for row in found if row is not None]

    def _batches(
        self, first: RowSpec, specs: Sequence[RowSpec], baseline: Running | None
    ) -> Running | None:
        """Measure rows that the store does not hold; gives the baseline, if it was started."""
        todo = [spec for spec in specs if self._store.get(spec) is None]
        while todo:
            baseline = baseline or self._begin(first)
            batch: list[Running] = []
            while todo and self._room(len(batch)):
                batch.append(self._open(todo.pop(0)))
            for row in batch:  # what they load may be loaded at once: no clock runs yet
                row.wait_ready()
            for row in batch:
                row.warm_up()
            for turn in range(max(row.spec.runs for row in batch)):
                self._round(baseline, [row for row in batch if turn < row.spec.runs], turn)
            for row in batch:
                self._finish(row)
        return baseline

    def _room(self, held: int) -> bool:
        """Whether one more process may be started; the first of a batch always may."""
        if held == 0:
            return True
        free = _free_bytes()
        return held + 1 < self._together and (free is None or free > _SPARE * self._largest)

    def _begin(self, spec: RowSpec) -> Running:
        row = self._open(spec)
        row.wait_ready()
        row.warm_up()
        return row

    def _open(self, spec: RowSpec) -> Running:
        row = Running(spec, self._opens, self._commit, self._say)
        self._alive.append(row)
        return row

    def _round(self, baseline: Running, batch: Sequence[Running], turn: int) -> None:
        """A run of each, each second round backwards."""
        order = [baseline, *batch]
        taken = {
            row.spec.digest: row.run(turn) for row in (order if turn % 2 == 0 else order[::-1])
        }
        compared = taken[baseline.spec.digest]
        for row in batch:
            if compared is not None and row.error is None:
                row.baseline.append(compared)

    def _finish(self, row: Running) -> None:
        self._store.put(row.result())
        self._alive.remove(row)
        self._largest = max(self._largest, row.peak_bytes)


def _free_bytes() -> int | None:
    """Memory that new processes can have; None where the system does not tell."""
    if not _MEMINFO.exists():
        return None
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines() if ":" in line)
    available = lines.get("MemAvailable")
    return None if available is None else int(available.split()[0]) * 1024


def by_group(specs: Sequence[RowSpec]) -> list[list[RowSpec]]:
    """The rows of each group, groups and rows in order."""
    found: dict[str, list[RowSpec]] = {}
    for spec in specs:
        found.setdefault(spec.group, []).append(spec)
    return list(found.values())
