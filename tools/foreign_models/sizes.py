"""The two sizes in which the networks of `diffusers` are built here.

Of size "tiny" a network has the least that keeps two levels of a UNet, or several blocks of a
transformer; of size "mid" its steps take so long that Python no longer counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Size:
    """What one call of a network holds.

    Args:
        name: "tiny" or "mid".
        batch: samples, of which guidance makes two branches.
        frames: of a video's latent.
        side: of a frame's latent, in pixels.
        words: of the text.
        text: channels of the text.
    """

    name: str
    batch: int
    frames: int
    side: int
    words: int
    text: int

    def of(self, tiny: _Value, mid: _Value) -> _Value:
        """The value for this size: a row of a table with a column for each."""
        return mid if self.name == "mid" else tiny


TINY = Size("tiny", batch=2, frames=3, side=8, words=5, text=16)
MID = Size("mid", batch=2, frames=5, side=16, words=16, text=128)
SIZES: Mapping[str, Size] = {size.name: size for size in (TINY, MID)}
