"""The flat arguments of a captured graph, for one call of the module it was captured from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from turbo4d.compiler.compat import flatten_with_path
from turbo4d.compiler.ir import Capture


def flat_args(
    capture: Capture, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> list[Tensor]:
    """One tensor per row of the capture's table, in its order.

    Args:
        capture: through the export door.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
    """
    leaves = [leaf for _, leaf in flatten_with_path((tuple(args), dict(kwargs or {})))]
    held = {"weight": capture.weights, "constant": capture.constants}
    held["input"] = dict(zip(capture.input_paths, leaves, strict=True))
    return [held[row.kind][row.target] for row in capture.table]
