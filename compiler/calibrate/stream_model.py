"""stream-model: one stream's steps as a model of CP-SAT; what it reads comes from where it must.

A slot set's sources form a path over the steps that write it. `since[k, a, t]` allows a read of `k`
at `t` from `a`: it starts at 1 only where `a` writes, and never rises after a step that writes or
breaks `k`. So at every step at most one source may be read, the newest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ortools.sat.python import cp_model
    from turbo4d.compiler.calibrate.choices import Choice, Sources
    from turbo4d.compiler.calibrate.slot_sets import SlotSets


@dataclass
class StreamModel:
    """The variables of one stream.

    Args:
        model: to add them to.
        sets: the slot sets.
        choices: per visited step what it may do.

    Attributes:
        taken: per step, move and order whether the step takes it.
        reads: per slot set, step, move, order and sources whether that read happens.
        error: of the whole stream, in parts.
    """

    model: cp_model.CpModel
    sets: SlotSets
    choices: Sequence[Sequence[Choice]]
    taken: dict[tuple[int, str, int], Any] = field(default_factory=dict[Any, Any])
    reads: dict[tuple[str, int, str, int, Sources], Any] = field(default_factory=dict[Any, Any])
    error: Any = 0

    def __post_init__(self) -> None:
        terms: list[Any] = []
        for place, here in enumerate(self.choices):
            for choice in here:
                key = place, choice.move, choice.order
                self.taken[key] = self.model.new_bool_var(f"x{key}")
                terms.append(choice.error * self.taken[key])
                for name, errors in choice.reads.items():
                    terms += self._read(key, name, errors)
            self.model.add_exactly_one(self.taken[place, each.move, each.order] for each in here)
        for name in self.sets.sets:
            self._path(name)
        self.error = sum(terms)

    def _read(
        self, key: tuple[int, str, int], name: str, errors: Mapping[Sources, int]
    ) -> list[Any]:
        terms: list[Any] = []
        for sources, error in errors.items():
            read = self.model.new_bool_var(f"y{name}{key}{sources}")
            self.reads[name, *key, sources] = read
            terms.append(error * read)
        self.model.add(
            sum(self.reads[name, *key, sources] for sources in errors) == self.taken[key]
        )
        return terms

    def _path(self, name: str) -> None:
        """Allows reads of a slot set from its newest sources alone."""
        by_source: dict[tuple[int, int], list[Any]] = defaultdict(list)
        arcs: dict[tuple[int, int], list[tuple[int, Any]]] = defaultdict(list)
        for (of, place, _, _, sources), read in self.reads.items():
            if of == name:
                by_source[sources[-1], place].append(read)
                for one, other in pairwise(sources):
                    arcs[one, other].append((place, read))
        if not by_source:
            return
        since = self._since(name, {*by_source, *arcs})
        for key, reads in by_source.items():
            self.model.add(sum(reads) <= since[key])
        for (one, other), reads in arcs.items():
            follows = self.model.new_bool_var(f"c{name}{one, other}")
            self.model.add(follows <= since[one, other])
            self.model.add(follows <= self._doing(name, "writes", other))
            by_place: dict[int, list[Any]] = defaultdict(list)
            for place, read in reads:
                by_place[place].append(read)
            for of in by_place.values():
                self.model.add(sum(of) <= follows)

    def _since(self, name: str, wanted: set[tuple[int, int]]) -> dict[tuple[int, int], Any]:
        last: dict[int, int] = {}
        for source, place in wanted:
            last[source] = max(place, last.get(source, 0))
        since: dict[tuple[int, int], Any] = {}
        for place in range(1, len(self.choices)):
            old: list[Any] = []
            for source in sorted(last):
                if source >= place or place > last[source]:
                    continue
                here = since[source, place] = self.model.new_bool_var(f"p{name}{source, place}")
                if source == place - 1:
                    self.model.add(here <= self._doing(name, "writes", source))
                else:
                    self.model.add(here <= since[source, place - 1])
                    old.append(here)
            done = self._doing(name, "writes", place - 1) + self._doing(name, "breaks", place - 1)
            self.model.add(sum(old) + done <= 1)
        return since

    def _doing(self, name: str, effect: str, place: int) -> Any:
        return sum(
            self.taken[place, choice.move, choice.order]
            for choice in self.choices[place]
            if self.sets.effects[choice.move, name] == effect
        )
