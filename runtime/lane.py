"""One stream of a plan that is being carried out: its cells and all that it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .cell import Cell, needed_values
from .conditioning_watch import ConditioningWatch
from .constants import Constants
from .errors import MemoryPlanError, SessionError
from .extrapolation import weights
from .finite_watch import FiniteWatch
from .prologue_values import PrologueValues
from .slots import Slots
from .steering import Steering

Form = tuple[torch.Size, torch.dtype, torch.device]


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
        slots: of the stream.
        bounds: per step what its slots may hold, by the plan's proof.
        watch: looks for slots that are not finite; None where nobody looks.
        conditioning: looks whether it stays the same; None where nobody looks.
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
    slots: Slots
    bounds: tuple[int, ...]
    watch: FiniteWatch | None = None
    conditioning: ConditioningWatch | None = None
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
                "call, with a stream of its own for each guidance branch, and for the second call "
                "of a solver that makes two."
            )
        cell = self.cells[step]
        if cell is None:
            raise SessionError(
                f"step {step} of stream {self.name!r}: the plan does not run the stream at this "
                "step."
            )
        return cell

    def fetch(self, step: int, cell: Cell) -> None:
        """Brings back what the next step reads, while this one computes; the rest waits."""
        near = needed_values(cell.engine.key, cell.orders, self._upcoming(step))
        self.slots.stow(near)
        self.slots.fetch(near)

    def write(self, step: int, cell: Cell, slots_out: Sequence[Tensor]) -> None:
        """Keeps what a step wrote and a later one reads, beside what the step read.

        Args:
            step: that ran.
            cell: that it ran as.
            slots_out: one per name in the engine's `writes`.

        Raises:
            MemoryPlanError: where the slots hold more than the plan's proof says.
        """
        written = zip(cell.engine.writes, slots_out, strict=True)
        kept = [(name, tensor) for name, tensor in written if name in cell.live]
        names, tensors = [name for name, _ in kept], [tensor for _, tensor in kept]
        if self.watch is not None:
            self.watch.look(names, tensors, step)
        if self.steering is not None:
            self.steering.ran(step, self.slots, dict(reversed(kept)))
        self.slots.keep(cell.needed)
        self.slots.write(names, tensors, step)
        if self.slots.offload and self.cells[step] is not cell:
            # The full variant was taken instead; it writes what the plan has on the host by now.
            self.slots.stow(self._upcoming(step))
        held = self.slots.size_bytes()
        if held > self.bounds[step]:
            raise MemoryPlanError(
                f"step {step} of stream {self.name!r}: its slots hold {held} bytes; the plan's "
                f"proof says {self.bounds[step]}. The engine's slots are larger than those it was "
                "planned for."
            )

    def let_go(self, step: int, cell: Cell) -> None:
        """Lets go of what no later step reads."""
        self.slots.keep(cell.live)
        if self.slots.offload:
            self.slots.stow(self._upcoming(step))

    def _upcoming(self, step: int) -> Mapping[str, int]:
        """Per slot the newest values that the stream's next step reads."""
        following = next((cell for cell in self.cells[step + 1 :] if cell is not None), None)
        if following is None:
            return {}
        return {name: following.orders.get(name, 0) + 1 for name in following.engine.reads}

    def mixes(self, step: int, cell: Cell) -> Mapping[str, Sequence[float]]:
        """The weights of the values that each extrapolated slot has, the oldest first.

        Where a slot holds fewer than its order needs, those of the order that it can have; of a
        fitted one it holds all, or the step is another (`short`).
        """
        mixes: dict[str, Sequence[float]] = {name: fit.mix for name, fit in cell.fits.items()}
        for name, order in cell.orders.items():
            if name in cell.fits:
                continue
            steps = self.slots.steps(name)[-order - 1 :]
            mixes[name] = weights(tuple(self.places[each] for each in steps), self.places[step])
        return mixes

    def short(self, cell: Cell) -> tuple[str, ...]:
        """The slots that hold fewer values than the weights of a fitted reuse are for."""
        return tuple(
            name for name, fit in cell.fits.items() if len(self.slots.steps(name)) < len(fit.mix)
        )

    def told(self, step: int, cell: Cell) -> str:
        """A step for the log: what it runs as, reads (and how old that is) and writes."""
        ages = self.slots.ages(cell.engine.reads, step)
        reads = ", ".join(f"{name} ({age} steps old)" for name, age in sorted(ages.items()))
        writes = ", ".join(sorted({*cell.engine.writes}))
        return (
            f"step {step} of stream {self.name!r}: {cell.name}; reads {reads or 'no slot'}; "
            f"writes {writes or 'none'}."
        )

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
        if self.conditioning is not None:
            self.conditioning.forget()
        if self.steering is not None:
            self.steering.begin()


def form_text(form: Form) -> str:
    """The form of a sample, for a sentence."""
    shape, dtype, device = form
    return f"{tuple(shape)} {str(dtype).removeprefix('torch.')} on {device}"
