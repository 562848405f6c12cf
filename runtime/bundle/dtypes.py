"""What a bundle calls a tensor's dtype: as torch does, without "torch."."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from turbo4d.runtime.errors import BundleError

DTYPES: Mapping[str, torch.dtype] = {
    name_of: dtype
    for name_of, dtype in (
        ("bfloat16", torch.bfloat16),
        ("bool", torch.bool),
        ("float16", torch.float16),
        ("float32", torch.float32),
        ("float64", torch.float64),
        ("int16", torch.int16),
        ("int32", torch.int32),
        ("int64", torch.int64),
        ("int8", torch.int8),
        ("uint8", torch.uint8),
    )
}
"""Those that a file of a bundle may hold."""


def dtype_named(name: str) -> torch.dtype:
    """The dtype that a bundle calls so.

    Raises:
        BundleError: for a name that is none.
    """
    if name not in DTYPES:
        raise BundleError(f"dtype {name!r} is unknown; there are {', '.join(DTYPES)}.")
    return DTYPES[name]


def name_of(dtype: torch.dtype) -> str:
    """What a bundle calls a dtype.

    Raises:
        BundleError: for one that no file of a bundle holds.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise BundleError(
            f"a bundle holds no tensor of dtype {name!r}, only of {', '.join(DTYPES)}; cast it in "
            "the model."
        )
    return name
