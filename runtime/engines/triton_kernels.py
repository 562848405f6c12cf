# pyright: reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false
# pyright: reportInvalidTypeForm=false
"""Kernels in Triton's language; the only file that imports it. Another: `triton_token_attention`.

Attention over few tokens: a program takes some groups of one head. The tokens of the keys pass one
by one, and the softmax is kept up with its running maximum and sum, so no score is ever stored.
All sums are in float32.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

# By name: a type checker takes `import triton` for the file beside this one.
triton: Any = import_module("triton")
tl: Any = import_module("triton.language")
TooLarge: Any = triton.OutOfResources
"""A program asks for more than the device has."""
_GROUPS = 4
_WARPS = 4


@triton.jit
def _attend(
    query, key, value, out, scale,
    inner, groups, tokens, head,
    q_outer, q_inner, q_token, q_head, q_one,
    k_outer, k_inner, k_token, k_head, k_one,
    v_outer, v_inner, v_token, v_head, v_one,
    o_outer, o_inner, o_token, o_head,
    GROUPS: tl.constexpr, TOKENS: tl.constexpr, HEAD: tl.constexpr,
):  # fmt: skip
    # Offsets may pass two thousand million: a full-size network's values do.
    group = (tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)).to(tl.int64)
    of_head = tl.program_id(1).to(tl.int64)
    token = tl.arange(0, TOKENS)
    one = tl.arange(0, HEAD)
    outer, within = group // inner, group % inner
    there = (group < groups)[:, None, None] & (one < head)[None, None, :]
    asked = there & (token < tokens)[None, :, None]
    rows = group < groups
    row_there = rows[:, None] & (one < head)[None, :]

    q_at = (outer * q_outer + within * q_inner + of_head * q_head)[:, None, None]
    q_at = q_at + (token * q_token)[None, :, None] + (one * q_one)[None, None, :]
    q = tl.load(query + q_at, mask=asked, other=0.0).to(tl.float32) * scale

    k_at = (outer * k_outer + within * k_inner + of_head * k_head)[:, None] + (one * k_one)[None, :]
    v_at = (outer * v_outer + within * v_inner + of_head * v_head)[:, None] + (one * v_one)[None, :]
    most = tl.full((GROUPS, TOKENS), float("-inf"), tl.float32)
    total = tl.zeros((GROUPS, TOKENS), tl.float32)
    found = tl.zeros((GROUPS, TOKENS, HEAD), tl.float32)
    for at in range(0, tokens):
        k = tl.load(key + k_at + at * k_token, mask=row_there, other=0.0).to(tl.float32)
        v = tl.load(value + v_at + at * v_token, mask=row_there, other=0.0).to(tl.float32)
        score = tl.sum(q * k[:, None, :], 2)
        now = tl.maximum(most, score)
        faded, weight = tl.exp(most - now), tl.exp(score - now)
        total = total * faded + weight
        found = found * faded[:, :, None] + weight[:, :, None] * v[:, None, :]
        most = now
    found = found / total[:, :, None]
    o_at = (outer * o_outer + within * o_inner + of_head * o_head)[:, None, None]
    o_at = o_at + (token * o_token)[None, :, None] + one[None, None, :]
    tl.store(out + o_at, found.to(out.dtype.element_ty), mask=asked)


def launch(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention of each group over its few tokens.

    Args:
        query: [G, P, T, N, D], any strides.
        key: likewise.
        value: likewise.
        scale: of the scores.

    Returns:
        [G, P, T, N, D] without gaps.
    """
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    outer, inner, tokens, heads, head = query.shape
    groups = outer * inner
    if not out.numel():
        return out
    grid = (triton.cdiv(groups, _GROUPS), heads)
    _attend[grid](
        query, key, value, out, scale, inner, groups, tokens, head,
        *query.stride(), *key.stride(), *value.stride(), *out.stride()[:4],
        GROUPS=_GROUPS, TOKENS=triton.next_power_of_2(tokens),
        HEAD=triton.next_power_of_2(head), num_warps=_WARPS,
    )  # fmt: skip
    return out
