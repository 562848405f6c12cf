"""The weights of a bundle: its file mapped into memory once, for all engines of the process."""

from __future__ import annotations

import threading

import torch
from torch import Tensor
from turbo4d.runtime.errors import BundleError

from .bundle_files import Bundle
from .dtypes import dtype_named


class BundleWeights:
    """Weights by name, as views of the file; nothing is read before it is used.

    The mapping is private: what writes into a view would write into a copy of the page, and never
    into the file. Nothing of ours does.

    Args:
        bundle: whose files have been checked.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._rows = {row.name: row for row in bundle.manifest.weights}
        self._bytes: Tensor | None = None
        self._moved: dict[torch.device, dict[str, Tensor]] = {}
        self._lock = threading.Lock()
        name = bundle.manifest.weights_file
        if name and (size := bundle.manifest.files[name].size_bytes):
            path = bundle.path(name)
            if path.stat().st_size != size:
                raise BundleError(f"{path}: its size has changed since it was checked.")
            try:
                self._bytes = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
            except RuntimeError as error:
                first = str(error).partition("\n")[0]
                raise BundleError(f"{path}: it cannot be mapped into memory: {first}") from error

    @property
    def names(self) -> tuple[str, ...]:
        """Of all weights."""
        return tuple(self._rows)

    def __getitem__(self, name: str) -> Tensor:
        """A weight on the CPU; a view, not a copy."""
        row = self._rows[name]
        dtype = dtype_named(row.dtype)
        if self._bytes is None or not row.size_bytes:
            return torch.empty(row.shape, dtype=dtype)
        held = self._bytes[row.offset : row.offset + row.size_bytes]
        return held.view(dtype).view(row.shape)

    def on(self, name: str, device: torch.device) -> Tensor:
        """A weight on a device, copied there once for all engines."""
        if device.type == "cpu":
            return self[name]
        with self._lock:
            held = self._moved.setdefault(device, {})
            if name not in held:
                held[name] = self[name].to(device)
            return held[name]
