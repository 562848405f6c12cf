"""What each move is expected to add to the final error, at every step, from every source.

    error = gain(move, step) x change(group, step, sources)

The change is how far the value that is read lies from the one that would be computed, relative to
it (L2). It follows for all sources, orders and storages from the scalar products of a group's
values at all steps of an exact run. The gain is what a change of one adds to the final error: an
amplitude, 10 ** (-dB / 20) of the fidelity that judges the final sample. Errors of a plan's steps
add up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from turbo4d.compiler.errors import CalibrationError
from turbo4d.runtime.extrapolation import weights
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.levels import LevelUnit, log_sigma

from .moves import Group, Move, gain_name
from .residual import residual

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Measured:
    """What was measured of one stream.

    Args:
        steps: that it visits, rising.
        products: per group the scalar products of its values at these steps, [steps, steps], in
            units in which their mean square is 1.
        gains: per move, and per group that it reads ("" for none), the gain at these steps. Those
            of order 1 stand under "move:1"; an order that has none takes those of order 0.
        rounding: per storage and group the relative error of a value of each step that is kept so.
        fit_products: the scalar products of what the network gives at these steps, then of the
            samples that it is fed, [2 steps, 2 steps]; empty where they are not alike.
    """

    steps: tuple[int, ...]
    products: Mapping[str, Matrix]
    gains: Mapping[str, Mapping[str, tuple[float, ...]]]
    rounding: Mapping[str, Mapping[str, tuple[float, ...]]] = field(
        default_factory=dict[str, Mapping[str, tuple[float, ...]]]
    )
    fit_products: Matrix = ()


@dataclass(frozen=True)
class ErrorTable:
    """Of one model, geometry and schedule.

    Args:
        model: fingerprint of the captured graph.
        geometry: what the model was captured for.
        levels: the noise level of each step.
        level_unit: what `levels` are.
        groups: of the model.
        moves: that were measured.
        measured: per stream.
    """

    model: str
    geometry: Geometry
    levels: tuple[float, ...]
    level_unit: LevelUnit
    groups: tuple[Group, ...]
    moves: tuple[Move, ...]
    measured: Mapping[str, Measured]

    @property
    def streams(self) -> Mapping[str, tuple[int, ...]]:
        """Per stream the steps that it visits."""
        return {name: measured.steps for name, measured in self.measured.items()}

    def change(
        self,
        stream: str,
        step: int,
        group: str,
        sources: Sequence[int],
        storage: str = "compute",
    ) -> float:
        """How far what is read lies from what would be computed, relative to it.

        Args:
            stream: of the plan.
            step: that reads.
            group: whose slots.
            sources: steps that wrote what is read, the oldest first; several are extrapolated.
            storage: in what the slots are kept.

        Raises:
            CalibrationError: where the table has no such group, step or storage.
        """
        of = self._of(stream)
        if group not in of.products:
            raise CalibrationError(
                f"error table: group {group!r} was not measured; there are "
                f"{', '.join(sorted(of.products))}."
            )
        places = [self._place(each) for each in sources]
        mix = [*weights(tuple(places), self._place(step)), -1.0]
        at = [self._at(of, stream, each) for each in (*sources, step)]
        products = of.products[group]
        squared = sum(
            first * second * products[i][j]
            for first, i in zip(mix, at, strict=True)
            for second, j in zip(mix, at, strict=True)
        )
        if storage != "compute":
            rounding = self._rounding(of, storage, group)
            squared += sum(
                (weight * rounding[i]) ** 2 * products[i][i]
                for weight, i in zip(mix[:-1], at[:-1], strict=True)
            )
        return math.sqrt(max(0.0, squared) / products[at[-1]][at[-1]])

    def fitted_change(self, stream: str, step: int, sources: Sequence[int]) -> float:
        """How far the best weighted sum lies from what the network gives, relative to it (L2).

        It sums what the network gave at the sources, and the sample of the newest: on a plan's own
        run the samples since then are in their span.

        Args:
            stream: of the plan.
            step: that is fitted.
            sources: steps that computed, the oldest first.

        Raises:
            CalibrationError: where the table has no such step, or nothing to fit by.
        """
        of = self._of(stream)
        if not of.fit_products:
            raise CalibrationError(
                "error table: what the network gives is not like its sample, so no step is fitted."
            )
        at = [self._at(of, stream, each) for each in (*sources, step)]
        return residual(of.fit_products, [*at[:-1], len(of.steps) + at[-2]], at[-1])

    def group_error(
        self,
        stream: str,
        step: int,
        move: str,
        group: str,
        order: int,
        sources: Sequence[int],
        storage: str = "compute",
    ) -> float:
        """What reading one group's slots is expected to add to the final error.

        Args:
            stream: of the plan.
            step: that takes the move.
            move: its name.
            group: whose slots it reads.
            order: of its reuse.
            sources: steps that wrote what is read, the oldest first: order + 1 of them.
            storage: in what the slots are kept.

        Raises:
            CalibrationError: where the table has no such move, group, step or storage.
        """
        if len(sources) != order + 1:
            raise CalibrationError(
                f"error table: order {order} of move {move!r} is given {len(sources)} sources; "
                f"wanted {order + 1}."
            )
        gain = self._gain(stream, step, move, group, order)
        if self._move(move).fitted:
            return gain * self.fitted_change(stream, step, sources)
        return gain * self.change(stream, step, group, sources, storage)

    def error(
        self,
        stream: str,
        step: int,
        move: str,
        order: int,
        sources: Mapping[str, Sequence[int]],
        storage: str = "compute",
    ) -> float:
        """What a move at a step is expected to add to the final error.

        Args:
            stream: of the plan.
            step: that takes the move.
            move: its name.
            order: of its reuse.
            sources: per group that it reads, the steps that wrote what is read, the oldest first.
            storage: in what the slots are kept.

        Raises:
            CalibrationError: where the table has no such move, step or storage, or a source is
                missing.
        """
        groups = self._move(move).groups
        if missing := sorted(set(groups) - set(sources)):
            raise CalibrationError(
                f"error table: move {move!r} reads group {missing[0]!r}, whose sources are "
                "missing; give them."
            )
        if not groups:
            return 0.0 if not self._move(move).actions else self._gain(stream, step, move, "", 0)
        return sum(
            self.group_error(stream, step, move, name, order, sources[name], storage)
            for name in groups
        )

    def _place(self, step: int) -> float:
        if not 0 <= step < len(self.levels):
            raise CalibrationError(
                f"error table: step {step} is unknown; there are 0 to {len(self.levels) - 1}."
            )
        return log_sigma(self.levels[step], self.level_unit)

    def _of(self, stream: str) -> Measured:
        if stream not in self.measured:
            raise CalibrationError(
                f"error table: stream {stream!r} was not measured; there are "
                f"{', '.join(map(repr, sorted(self.measured)))}."
            )
        return self.measured[stream]

    def _move(self, name: str) -> Move:
        for move in self.moves:
            if move.name == name:
                return move
        raise CalibrationError(
            f"error table: move {name!r} was not measured; there are "
            f"{', '.join(sorted(move.name for move in self.moves))}."
        )

    def _gain(self, stream: str, step: int, move: str, group: str, order: int) -> float:
        self._move(move)
        of = self._of(stream)
        found = of.gains.get(gain_name(move, order)) or of.gains.get(move, {})
        if group not in found:
            raise CalibrationError(
                f"error table: move {move!r} has no gain by group {group!r}; it has "
                f"{', '.join(map(repr, sorted(found))) or 'none'}."
            )
        return found[group][self._at(of, stream, step)]

    @staticmethod
    def _at(of: Measured, stream: str, step: int) -> int:
        if step not in of.steps:
            raise CalibrationError(
                f"error table: stream {stream!r} does not run at step {step}; it runs at "
                f"{', '.join(map(str, of.steps))}."
            )
        return of.steps.index(step)

    @staticmethod
    def _rounding(of: Measured, storage: str, group: str) -> Sequence[float]:
        found = of.rounding.get(storage, {})
        if group not in found:
            raise CalibrationError(
                f"error table: storage {storage!r} of group {group!r} was not measured; there are "
                f"{', '.join(['compute', *sorted(of.rounding)])}."
            )
        return found[group]
