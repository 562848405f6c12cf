"""bounds-model: the variant cap and the byte bound, over the models of all streams of a plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ortools.sat.python import cp_model
    from turbo4d.compiler.calibrate.stream_model import StreamModel


def bound_variants(
    model: cp_model.CpModel, streams: Sequence[StreamModel], max_variants: int
) -> None:
    """At most so many graphs: pairs of a move and the slot sets that its step writes.

    A step writes what a later one reads, no more and no less, as the plan's check finds it.
    """
    used: dict[tuple[str, frozenset[str]], Any] = {}
    for at, stream in enumerate(streams):
        writes = _writes(model, stream)
        for place, here in enumerate(stream.choices):
            variants: dict[tuple[str, frozenset[str]], Any] = {}
            for move in dict.fromkeys(choice.move for choice in here):
                may = [
                    name
                    for name in stream.sets.sets
                    if (name, place) in writes and stream.sets.effects[move, name] == "writes"
                ]
                of_move = {
                    (move, frozenset(written)): model.new_bool_var(f"v{at, place, move, written}")
                    for written in _subsets(may)
                }
                taken = [stream.taken[place, c.move, c.order] for c in here if c.move == move]
                model.add(sum(of_move.values()) == sum(taken))
                variants |= of_move
            for name in stream.sets.sets:
                if (name, place) in writes:
                    with_it = [var for (_, written), var in variants.items() if name in written]
                    model.add(sum(with_it) == writes[name, place])
            for key, variant in variants.items():
                if key not in used:
                    used[key] = model.new_bool_var(f"u{key}")
                model.add(variant <= used[key])
    model.add(sum(used.values()) <= max_variants)


def bound_bytes(
    model: cp_model.CpModel, streams: Sequence[StreamModel], max_cache_bytes: int
) -> None:
    """The streams' peaks together hold no more than so many bytes."""
    peaks: list[Any] = []
    for at, stream in enumerate(streams):
        peak = model.new_int_var(0, max_cache_bytes, f"peak{at}")
        held: dict[tuple[str, int, int], dict[int, list[Any]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for (name, place, _, order, sources), read in stream.reads.items():
            for step in range(sources[0], place + 1):
                count = order + 1 if step == place else sum(each <= step for each in sources)
                for nth in range(1, min(count, len(sources)) + 1):
                    held[name, step, nth][place].append(read)
        by_step: dict[int, list[Any]] = defaultdict(list)
        for (name, step, nth), by_reader in held.items():
            holds = model.new_bool_var(f"h{at, name, step, nth}")
            for reads in by_reader.values():
                model.add(sum(reads) <= holds)
            by_step[step].append(stream.sets.sets[name].size_bytes * holds)
        for terms in by_step.values():
            model.add(sum(terms) <= peak)
        peaks.append(peak)
    model.add(sum(peaks) <= max_cache_bytes)


def _writes(model: cp_model.CpModel, stream: StreamModel) -> dict[tuple[str, int], Any]:
    """Whether a step writes a slot set: 1 where a read from it happens, 0 where none does."""
    readers: dict[tuple[str, int], dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for (name, place, _, _, sources), read in stream.reads.items():
        for source in sources:
            readers[name, source][place].append(read)
    found: dict[tuple[str, int], Any] = {}
    for (name, source), by_place in readers.items():
        written = found[name, source] = model.new_bool_var(f"w{name, source}")
        for reads in by_place.values():
            model.add(sum(reads) <= written)
        model.add(sum(chain.from_iterable(by_place.values())) >= written)
    return found


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    counts = range(len(names) + 1)
    return [*chain.from_iterable(combinations(names, count) for count in counts)]
