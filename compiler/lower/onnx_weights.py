"""onnx-weights: where the weights of ONNX graphs lie, outside the graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from turbo4d.runtime.compat import versions_of

ALIGNMENT = 64
INLINE_BYTES = 1024
"""Weights up to this size stand in the graph's own file."""


class Weights(Protocol):
    """Where the weights of graphs lie: in one file of the graphs' own folder.

    Attributes:
        location: the file's name.
        inline_bytes: weights up to this size stand in each graph's own file instead.
    """

    location: str
    inline_bytes: int

    def place(self, name: str, value: Tensor) -> tuple[int, int]:
        """Offset and length of the weight of a placeholder."""
        ...


class WeightFile:
    """The weights of some graphs in one folder, each once.

    Args:
        path: of the file; what is there is written over.
    """

    inline_bytes = INLINE_BYTES

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = path.name
        self._placed: dict[tuple[str, int, int | None], tuple[int, int]] = {}
        path.write_bytes(b"")

    def place(self, name: str, value: Tensor) -> tuple[int, int]:
        """Offset and length of a weight; written where no other graph brought it as it is."""
        key = name, value.data_ptr(), versions_of([value])[0]
        if key not in self._placed:
            with self.path.open("ab") as file:
                file.write(b"\0" * (-file.tell() % ALIGNMENT))
                data = raw(value)
                self._placed[key] = (file.tell(), len(data))
                file.write(data)
        return self._placed[key]


def raw(value: Tensor) -> bytes:
    """A tensor's bytes, as ONNX has them."""
    flat = value.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
