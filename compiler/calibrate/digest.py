"""digest: what tells one example of a calibration from another, and one network's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

LENGTH = 16  # hexadecimal digits that are kept


def digest(value: object) -> str:
    """A text that is equal for equal values: tensors by their bits, containers by what they hold.

    Of an object that is neither, nor a plain value, its type alone counts.
    """
    state = hashlib.sha256()
    _add(state, value)
    return state.hexdigest()[:LENGTH]


def weights_digest(network: nn.Module) -> str:
    """The same of a network's parameters and buffers."""
    return digest(dict(network.state_dict()))


def _add(state: Any, value: object) -> None:
    state.update(type(value).__qualname__.encode() + b"\0")
    if isinstance(value, Tensor):
        state.update(f"{tuple(value.shape)} {value.dtype}".encode())
        state.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            state.update(field.name.encode())
            _add(state, getattr(value, field.name))
    elif isinstance(value, Mapping):
        for name, item in sorted(cast("Mapping[Any, Any]", value).items(), key=_by_key):
            _add(state, name)
            _add(state, item)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in cast("Sequence[Any]", value):
            _add(state, item)
    elif value is None or isinstance(value, str | bytes | bool | int | float | complex):
        state.update(repr(value).encode())


def _by_key(item: tuple[object, object]) -> str:
    """By what a mapping's entries are put in order."""
    return repr(item[0])
