"""weights-file: all weights and constants of a bundle, each once, in one file to be mapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from torch import Tensor
from turbo4d.compiler.lower.onnx_weights import ALIGNMENT, raw
from turbo4d.runtime.bundle.dtypes import name_of
from turbo4d.runtime.bundle.manifest import WeightRow

STEM, SUFFIX = "weights", ".bin"


def write_weights(
    weights: Mapping[str, Tensor], file: BinaryIO, say: Callable[[str], None]
) -> tuple[WeightRow, ...]:
    """Write the bytes of some tensors one after the other, each at a multiple of `ALIGNMENT`.

    Names that share one tensor, as tied weights do, share its bytes.

    Args:
        weights: by name.
        file: to write to, empty.
        say: told how far it is.

    Returns:
        Where each lies, in the order given.
    """
    rows: dict[str, WeightRow] = {}
    placed: dict[tuple[object, ...], tuple[int, int]] = {}
    total = sum(value.numel() * value.element_size() for value in weights.values())
    for name, value in weights.items():
        shape, kind = tuple(value.shape), name_of(value.dtype)
        same = value.data_ptr(), shape, value.stride(), kind
        if same not in placed:
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            offset, data = file.tell(), raw(value)
            file.write(data)
            placed[same] = offset, len(data)
            say(f"weights: {file.tell() >> 20} of {total >> 20} MiB")
        rows[name] = WeightRow(name, *placed[same], shape, kind)
    return tuple(rows.values())


class PlacedWeights:
    """Weights that are in their file already, as a graph's writer asks for them.

    Args:
        file: that holds them.
        held: by placeholder of the graph.
    """

    inline_bytes = 0

    def __init__(self, file: Path, held: Mapping[str, WeightRow]) -> None:
        self.location = file.name
        self._held = held

    def place(self, name: str, value: Tensor) -> tuple[int, int]:
        """Offset and length of the weight of a placeholder."""
        row = self._held[name]
        return row.offset, row.size_bytes
