"""slot-sets: which slots the moves of a table read, write, leave or break."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from turbo4d.compiler.calibrate.moves import Group, Move
    from turbo4d.runtime.region_info import RegionInfo

# What a step leaves of a slot set: all its values are new, none is, or some are and it is broken:
# its slots would then be of different steps, which no measurement covers.
Effect = Literal["writes", "leaves", "breaks"]


@dataclass(frozen=True)
class SlotSet:
    """Slots that are written and read together.

    Args:
        name: of its group, or of the relevance that a group's pruning reads.
        regions: which a step must compute to write it.
        size_bytes: of one value of each.
        group: whose change errs; None for relevance, which says only which tokens matter.
    """

    name: str
    regions: tuple[str, ...]
    size_bytes: int
    group: str | None

    def effect(self, move: Move, parents: Mapping[str, str | None]) -> Effect:
        """What a step that takes a move does to it."""
        computed = [_computed(region, move, parents) for region in self.regions]
        if all(computed):
            return "writes"
        return "breaks" if any(computed) else "leaves"


@dataclass(frozen=True)
class SlotSets:
    """Every slot set of a table's moves.

    Args:
        sets: by name.
        reads: per move the names of the slot sets that it reads.
        effects: per move and slot set.
    """

    sets: Mapping[str, SlotSet]
    reads: Mapping[str, tuple[str, ...]]
    effects: Mapping[tuple[str, str], Effect]

    @staticmethod
    def of(
        groups: Sequence[Group],
        moves: Sequence[Move],
        regions: Sequence[RegionInfo],
        size_bytes: Mapping[str, int],
    ) -> SlotSets:
        """The slot sets that the moves read.

        Args:
            groups: of the table.
            moves: of the table.
            regions: of the model.
            size_bytes: of each region's slot as it is stored, and of each relevance slot.
        """
        by_name = {region.name: region for region in regions}
        by_group = {group.name: group for group in groups}
        sets: dict[str, SlotSet] = {}
        reads: dict[str, tuple[str, ...]] = {}
        for move in moves:
            found = [_of_group(by_group[name], size_bytes) for name in move.groups]
            pruned = [name for name, action in move.actions.items() if action.kind == "prune"]
            if pruned:
                found.append(_of_relevance([by_name[name] for name in pruned]))
            sets |= {each.name: each for each in found}
            reads[move.name] = tuple(each.name for each in found)
        parents = {region.name: region.parent for region in regions}
        effects: dict[tuple[str, str], Effect] = {
            (move.name, each.name): each.effect(move, parents)
            for move in moves
            for each in sets.values()
        }
        return SlotSets(sets, reads, effects)


def _of_group(group: Group, size_bytes: Mapping[str, int]) -> SlotSet:
    size = sum(size_bytes[name] for name in group.regions)
    return SlotSet(group.name, group.regions, size, group.name)


def _of_relevance(pruned: Sequence[RegionInfo]) -> SlotSet:
    sizes = {region.relevance: region.relevance_bytes for region in pruned if region.relevance}
    names = tuple(sorted(sizes))
    return SlotSet("relevance of " + ", ".join(names), names, sum(sizes.values()), None)


def _computed(region: str, move: Move, parents: Mapping[str, str | None]) -> bool:
    around: str | None = region
    while around is not None:
        if around in move.actions:
            return False
        around = parents[around]
    return True


def variants_of(
    taken: Sequence[tuple[str, int]], sets: SlotSets
) -> set[tuple[str, frozenset[str]]]:
    """The graphs that a stream's moves need: each a move and the slot sets that its step writes.

    Args:
        taken: per visited step the move and the order.
        sets: of the moves.
    """
    written: dict[str, list[int]] = {name: [] for name in sets.sets}
    writes: list[set[str]] = [set() for _ in taken]
    for place, (move, order) in enumerate(taken):
        for name in sets.reads[move]:
            depth = order + 1 if sets.sets[name].group is not None else 1
            for source in written[name][-depth:]:
                writes[source].add(name)
        for name, sources in written.items():
            if sets.effects[move, name] == "writes":
                sources.append(place)
    return {(move, frozenset(of)) for (move, _), of in zip(taken, writes, strict=True)}


def peak_bytes(taken: Sequence[tuple[str, int]], sets: SlotSets) -> int:
    """What a stream's slots hold at most, a value from the step that writes it to its last read.

    Args:
        taken: per visited step the move and the order.
        sets: of the moves.
    """
    written: dict[str, list[int]] = {name: [] for name in sets.sets}
    until: dict[tuple[str, int], int] = {}  # of each value that is read the last step that does
    for place, (move, order) in enumerate(taken):
        for name in sets.reads[move]:
            depth = order + 1 if sets.sets[name].group is not None else 1
            until |= {(name, source): place for source in written[name][-depth:]}
        for name, sources in written.items():
            if sets.effects[move, name] == "writes":
                sources.append(place)
    held = [0] * len(taken)
    for (name, source), last in until.items():
        for place in range(source, last + 1):
            held[place] += sets.sets[name].size_bytes
    return max(held, default=0)
