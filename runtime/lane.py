"""One stream of a plan that is being carried out: its cells and all that it holds."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .constants import Constants
from .engine import Engine
from .errors import SessionError
from .prologue_values import PrologueValues
from .slots import Slots

Form = tuple[torch.Size, torch.dtype, torch.device]


@dataclass(frozen=True)
class Cell:
    """What one step of one stream needs, found when the plan is resolved.

    Args:
        name: of the variant.
        engine: of the variant.
        live: the regions whose slots a later step still reads.
    """

    name: str
    engine: Engine
    live: frozenset[str]


@dataclass
class Lane:
    """A stream: its cells, its slots, its prologue's values and the last step that ran.

    Args:
        name: of the stream.
        cells: one per step, None where the stream does not run.
        used: sorted names of all slots that any of its steps reads.
        prologue: for the stream's conditioning.
        constants: in debug mode, what the run takes for constant.
        slots: of the stream.
        last: the last step that ran, None before the first.
        form: of the sample.
    """

    name: str
    cells: tuple[Cell | None, ...]
    used: tuple[str, ...]
    prologue: PrologueValues
    constants: Constants | None
    slots: Slots = field(default_factory=Slots)
    last: int | None = None
    form: Form | None = None

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

    def begin(self) -> None:
        """Begins a new run: nothing of the last one may be read."""
        self.drop()
        self.last = None

    def drop(self) -> None:
        """Lets go of all that was computed under the conditioning so far."""
        self.slots.drop()
        self.prologue.drop()
        if self.constants is not None:
            self.constants.forget()
