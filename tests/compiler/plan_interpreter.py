"""A plan carried out in plain Python: what becomes of each region, with a dict of slots.

Knows nothing of graphs, passes or engines. Whoever runs a network's own modules calls it at each
region; what a region computes is kept for later steps, whether or not one will read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Values = tuple[Tensor, ...]


class Interpreter:
    """One stream of a plan.

    Args:
        parents: of each region. What lies inside one that is not computed counts as not computed,
            even where Python goes through it for nothing.
    """

    def __init__(self, parents: Mapping[str, str | None]) -> None:
        self.parents = parents
        self.slots: dict[str, Values] = {}
        self._row: Mapping[str, str] = {}
        self._written: dict[str, Values] = {}

    def begin(self, row: Mapping[str, str]) -> None:
        """Begin a step; `row` says for each region that is not computed "reuse" or "bypass"."""
        self.slots.update({k: v for k, v in self._written.items() if self._computed(k)})
        self._written = {}
        self._row = row

    def written(self, name: str) -> Values:
        """What this step computed of a region, as its slot holds it."""
        return self._written[name]

    def _computed(self, name: str) -> bool:
        outer: str | None = name
        while outer is not None and outer not in self._row:
            outer = self.parents[outer]
        return outer is None

    def __call__(
        self, name: str, form: str, entry: Tensor, run: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """One region with one entry and one exit; for "sum" `run` gives what is to be added."""
        action = self._row.get(name)
        if action == "bypass":
            return entry
        if action == "reuse":
            (held,) = self.slots[name]
            return held if form == "exit" else entry + held
        made = run(entry)
        self._written[name] = (made - entry if form == "difference" else made,)
        return entry + made if form == "sum" else made

    def streams(self, name: str, entries: Values, run: Callable[[Values], Values]) -> Values:
        """One region with several; its slots hold differences."""
        action = self._row.get(name)
        if action == "bypass":
            return entries
        if action == "reuse":
            pairs = zip(entries, self.slots[name], strict=True)
            return tuple(entry + held for entry, held in pairs)
        made = run(entries)
        pairs = zip(made, entries, strict=True)
        self._written[name] = tuple(after - before for after, before in pairs)
        return made

    def values(self, name: str, run: Callable[[], Values]) -> Values:
        """One region whose slots hold what it makes, as it is; it is computed or reused."""
        if self._row.get(name) == "reuse":
            return self.slots[name]
        self._written[name] = run()
        return self._written[name]
