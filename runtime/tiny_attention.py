"""Attention over sequences of a few tokens, read where they lie.

Camera and motion attention run over 8 views or 5 frames, hundreds of thousands of groups at a time.
A flash kernel fills a tile of 64 or more rows with those 8 or 5, and wants a group's heads side by
side. Here a program takes a block of groups, reads every token at its stride, holds what it needs
of a group in registers, and writes the next layer's layout.

On CUDA a kernel of Triton does it (`engines/triton_kernels.py`); elsewhere torch's own operators,
whose result is the same to rounding.
"""

# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false
from __future__ import annotations

import torch
from torch import Tensor

MAX_TOKENS = 16
"""More of them do not fit the registers of a program."""

_AXES = "groups outer, groups inner, tokens, heads, head"


@torch.library.custom_op("turbo4d::tiny_attention", mutates_args=())
def tiny_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(scale * query key^T) value, over the tokens of each group.

    Args:
        query: [G, P, T, N, D], groups in two axes, of any strides: such as branches x frames and
            pixels, with T = V views apart; no more than `MAX_TOKENS` tokens.
        key: likewise, as many tokens.
        value: likewise.
        scale: of the scores.

    Returns:
        [G, P, T, N, D] without gaps, in the dtype of `query`.

    Source: the recurrence of Milakov and Gimelshein 2018 (online softmax), in the kernel.
    """
    _check(query, key, value)
    left, right = query.transpose(2, 3).float(), key.transpose(2, 3).float()
    weights = (left @ right.transpose(-1, -2) * scale).softmax(-1)
    found = weights @ value.transpose(2, 3).float()
    return found.transpose(2, 3).to(query.dtype).contiguous()


@tiny_attention.register_fake
def _like(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    _check(query, key, value)
    return query.new_empty(query.shape)


@tiny_attention.register_kernel("cuda")
def _on_cuda(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    from .engines.triton_kernels import launch

    _check(query, key, value)
    return launch(query, key, value, scale)


OPERATOR = torch.ops.turbo4d.tiny_attention.default
"""The operator as graphs call it."""


def _check(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Refuses what the kernel does not compute; a torch operator raises ValueError."""
    shapes = [tuple(each.shape) for each in (query, key, value)]
    if len({*shapes}) > 1 or query.dim() != 5 or query.shape[2] > MAX_TOKENS:
        raise ValueError(
            f"tiny_attention: query, key and value are {shapes}; wanted one shape of {_AXES}, with "
            f"at most {MAX_TOKENS} tokens."
        )


def missing(device: torch.device) -> str | None:
    """Why the kernel does not run on a device; None where it does."""
    if device.type != "cuda":
        return f"its kernels run on CUDA, and values are on {device.type!r}"
    try:
        from .engines import triton_kernels as triton_kernels
    except ImportError:
        return "the package triton is missing"
    return None
