"""One stream of a plan that is being carried out: its cells and all that it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from .constants import Constants
from .engine import Engine
from .errors import SessionError
from .extrapolation import weights
from .finite_watch import FiniteWatch
from .prologue_values import PrologueValues
from .slots import Slots

if TYPE_CHECKING:
    from .steering import Steering

Form = tuple[torch.Size, torch.dtype, torch.device]


@dataclass(frozen=True)
class Cell:
    """What one step of one stream needs, found when the plan is resolved.

    Args:
        name: of the variant.
        engine: of the variant.
        live: the regions whose slots a later step still reads, and how many of the newest values.
        orders: the regions whose slots are extrapolated, and by which order.
    """

    name: str
    engine: Engine
    live: Mapping[str, int]
    orders: Mapping[str, int] = field(default_factory=dict[str, int])

    @cached_property
    def held(self) -> Mapping[str, int]:
        """Per region the newest values that are held while the step runs, or after it."""
        read = {name: self.orders.get(name, 0) + 1 for name in self.engine.reads}
        return {
            name: max(read.get(name, 0), self.live.get(name, 0)) for name in {*read, *self.live}
        }


@dataclass
class Lane:
    """A stream: its cells, its slots, its prologue's values and the last step that ran.

    Args:
        name: of the stream.
        cells: one per step, None where the stream does not run.
        places: ln(sigma) of each step.
        used: sorted names of all slots that any of its steps reads.
        prologue: for the stream's conditioning.
        constants: in debug mode, what the run takes for constant.
        watch: looks for slots that are not finite; None where nobody looks.
        slots: of the stream.
        last: the last step that ran, None before the first.
        form: of the sample.
        steering: of an adaptive run: chooses each step's cell; None where the plan's are taken.
    """

    name: str
    cells: tuple[Cell | None, ...]
    places: tuple[float, ...]
    used: tuple[str, ...]
    prologue: PrologueValues
    constants: Constants | None
    watch: FiniteWatch | None = None
    slots: Slots = field(default_factory=Slots)
    last: int | None = None
    form: Form | None = None
    steering: Steering | None = None

    def cell(self, step: int) -> Cell:
        """What a step needs.

        Raises:
            SessionError: where there is no such step, or it ran already.
        """
        if step >= len(self.cells):
            raise SessionError(
                f"step {step} of stream {self.name!r}: the plan has {len(self.cells)} steps, 0 to "
                f"{len(self.cells) - 1}."
            )
        if step == self.last:
            raise SessionError(
                f"step {step} of stream {self.name!r} ran already; call run.step() before each "
                "call, with a stream of its own for each guidance branch."
            )
        cell = self.cells[step]
        if cell is None:
            raise SessionError(
                f"step {step} of stream {self.name!r}: the plan does not run the stream at this "
                "step."
            )
        return cell

    def mixes(self, step: int, cell: Cell) -> Mapping[str, Sequence[float]]:
        """The weights of the values that each extrapolated slot has, the oldest first.

        Where a slot holds fewer than its order needs, those of the order that it can have.
        """
        mixes: dict[str, Sequence[float]] = {}
        for name, order in cell.orders.items():
            steps = self.slots.steps(name)[-order - 1 :]
            mixes[name] = weights(tuple(self.places[each] for each in steps), self.places[step])
        return mixes

    def begin(self) -> None:
        """Begins a new run: nothing of the last one may be read."""
        self.drop()
        self.last = None

    def drop(self) -> None:
        """Lets go of all that was computed under the conditioning so far."""
        self.slots.drop()
        if self.watch is not None:
            self.watch.forget()
        self.prologue.drop()
        if self.constants is not None:
            self.constants.forget()
        if self.steering is not None:
            self.steering.begin()
