"""What the runtime must know of a captured denoiser to call its engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .errors import Turbo4DError
from .geometry import Geometry
from .plan import RegionInfo


@dataclass(frozen=True)
class Signature:
    """The denoiser's flat arguments, and the regions a plan may name.

    Args:
        names: of all flat arguments, weights and constants first.
        kinds: one per name.
        sample: index of the noisy latents.
        level: index of the noise level, None where none was found.
        conditioning: indices of the inputs that stay the same for a whole run; an input that was
            declared to change at every step is not among them.
        regions: every region.
        model: the fingerprint of the captured graph.
        geometry: what it was captured for.
        weights_bytes: of all weights, each once.
        invariant: per index of an input that does change, the channels [start, stop) of its second
            axis that stay the same for a whole run.
        piece: which graph of a forward it is that came in several; "" for a whole forward.
    """

    names: tuple[str, ...]
    kinds: tuple[Literal["weight", "constant", "input"], ...]
    sample: int
    level: int | None
    conditioning: tuple[int, ...]
    regions: tuple[RegionInfo, ...]
    model: str
    geometry: Geometry
    weights_bytes: int
    invariant: Mapping[int, tuple[tuple[int, int], ...]] = field(
        default_factory=dict[int, tuple[tuple[int, int], ...]]
    )
    piece: str = ""

    def __post_init__(self) -> None:
        order = ("weight", "constant", "input")
        if [*self.kinds] != sorted(self.kinds, key=order.index) or len(self.kinds) != len(
            self.names
        ):
            raise Turbo4DError(
                "signature: the flat arguments are out of order; wanted weights, constants, inputs."
            )

    @property
    def weight_count(self) -> int:
        """How many of the flat arguments, from the first, are weights."""
        return self.kinds.count("weight")
