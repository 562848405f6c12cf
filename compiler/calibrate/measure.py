"""From examples to an error table: recorded runs for the changes, replayed ones for the gains.

Changes are cheap, one exact run per example gives them for all moves, steps and sources. Gains are
dear: each probe runs the steps after the one that deviates. So the step, else the core, and the
outermost level, which plans reuse most, are probed at many steps of the first example and at a few
of another; other moves at a few of the first one, scaled by how its gains lie to the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .assembly import assembled
from .changes import changes_of
from .error_table import ErrorTable
from .gains import FEW, Probe, probe_error, probes_of, spread
from .harness import Harness
from .moves import Group, Move, groups_of, moves_of
from .replay import Recording
from .state import State

GAIN_EXAMPLES = 2  # on which gains are measured; changes are on all
Example = tuple[str, object]  # its name, and what the sampler takes
Progress = Callable[[float, str], None]


def measure(
    harness: Harness,
    examples: Sequence[Example],
    state: State | None = None,
    *,
    use: Collection[str] | None = None,
    storages: bool = True,
    progress: Progress | None = None,
) -> ErrorTable:
    """The error table of a network under a sampler.

    Args:
        harness: that has learned.
        examples: at least one; names differ.
        state: keeps what was measured; what it holds is not measured again.
        use: names of the moves to measure, None for all.
        storages: whether the rounding of each storage is measured.
        progress: told the share that is done, and of what.

    Raises:
        CalibrationError: where the sampler is not deterministic, an example is of another
            geometry, or `use` names an unknown move.
    """
    groups = groups_of(harness.regions)
    moves = moves_of(harness.regions, groups, use=use)
    work = _Work(harness, groups, moves, state or State(None, {}), progress or _nobody)
    gained = examples[:GAIN_EXAMPLES]
    wanted = [work.probes(dense_only=at > 0) for at, _ in enumerate(gained)]
    work.total = 2 * len(examples) + sum(map(len, wanted))
    changes = [work.changes(each, storages=storages and not at) for at, each in enumerate(examples)]
    errors = [work.errors(each, probes) for each, probes in zip(gained, wanted, strict=True)]
    unmeasured = ErrorTable(
        harness.model, harness.geometry, harness.levels, harness.level_unit, groups, moves, {}
    )
    return assembled(unmeasured, changes, errors)


def dense_moves(moves: Sequence[Move], groups: Sequence[Group]) -> tuple[str, ...]:
    """The moves that are probed at many steps: of the step, else the core; of the first level."""
    firsts: set[str] = set()
    for kinds in (("step", "core"), ("level",)):
        named = [group.name for kind in kinds for group in groups if group.kind == kind]
        held = [move.name for name in named for move in moves if name in move.groups]
        firsts |= {*held[:1]}
    return tuple(move.name for move in moves if move.name in firsts)


@dataclass
class _Work:
    """One measurement under way."""

    harness: Harness
    groups: tuple[Group, ...]
    moves: tuple[Move, ...]
    state: State
    tell: Progress
    total: int = 1  # pieces of work; a recorded run counts as two
    _done: int = 0

    def probes(self, *, dense_only: bool) -> tuple[Probe, ...]:
        """The probes of one example."""
        dense = dense_moves(self.moves, self.groups)
        probes = probes_of(self.harness.streams, self.moves, dense=dense)
        if not dense_only:
            return probes
        own = [probe for probe in probes if probe.move in dense and not probe.order]
        alike = {(probe.stream, probe.move) for probe in own}
        return tuple(
            probe
            for each in sorted(alike)
            for probe in spread([one for one in own if (one.stream, one.move) == each], FEW)
        )

    def changes(self, example: Example, *, storages: bool) -> Mapping[str, Any]:
        """What an exact run showed, per stream."""
        name, value = example
        self._tell(f"changes of {name}", 2)
        return self.state.once(
            f"changes {name}",
            partial(changes_of, self.harness, value, self.groups, storages=storages),
        )

    def errors(self, example: Example, probes: Sequence[Probe]) -> Mapping[Probe, float]:
        """The final errors of one example's probes."""
        name, value = example
        recorded: list[Recording] = []
        found: dict[Probe, float] = {}
        for probe in probes:
            self._tell(f"{probe.move} at step {probe.step} of {name}", 1)
            make = partial(self._error, value, probe, recorded)
            found[probe] = self.state.once(f"probe {name} {probe.name}", make)
        return found

    def _tell(self, what: str, pieces: int) -> None:
        self.tell(self._done / self.total, what)
        self._done += pieces

    def _error(self, example: object, probe: Probe, recorded: list[Recording]) -> float:
        if not recorded:
            recorded.append(self.harness.record(example, (), lambda at, values: None))
        move = next(move for move in self.moves if move.name == probe.move)
        return probe_error(self.harness, example, recorded[0], probe, move)


def _nobody(share: float, what: str) -> None:
    """Nobody is told."""
