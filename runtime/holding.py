"""How a run holds its slots, beside in what it stores them, and whether its steps are recorded."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import OptionError


@dataclass(frozen=True)
class Holding:
    """How a run holds its slots, and whether its steps are recorded.

    Args:
        fixed_slots: whether each has an address that does not move during a session, which CUDA
            graphs and TensorRT ask for; what steps write is then copied.
        offload: whether those that the next step does not read wait on the host.
        cuda_graphs: whether each engine's whole step is recorded as a CUDA graph and replayed.

    Raises:
        OptionError: where both are asked for.
    """

    fixed_slots: bool = False
    offload: bool = False
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        if self.fixed_slots and self.offload:
            raise OptionError(
                "fixed_slots and offload are both on; what waits on the host has no fixed address. "
                "Leave one off."
            )


FREE = Holding()
