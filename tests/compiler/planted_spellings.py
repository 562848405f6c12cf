"""Attention in the ways that networks write it: by operator or by hand, masked, rotated, normed.

A spelling takes queries, keys and values [G, L, N, D], the last two with fewer heads where they are
grouped, and gives [G, L, N, D].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HEADS = 2
Spelling = Callable[[Tensor, Tensor, Tensor], Tensor]
Part = Callable[[Tensor], Tensor]


def heads_first(x: Tensor) -> Tensor:
    """[G, L, N, D] to [G, N, L, D], and back."""
    return x.transpose(1, 2)


def allowed(q: Tensor, k: Tensor) -> Tensor:
    """Which key a query may look at: those before it, and the first."""
    mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril()
    return mask | (torch.arange(k.shape[1]) == 0)


def penalty(q: Tensor, k: Tensor) -> Tensor:
    """A bias by distance."""
    ends = (torch.arange(side.shape[1], dtype=q.dtype) for side in (q, k))
    return -0.3 * (next(ends)[:, None] - next(ends)[None]).abs()


def sdpa(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    q, k, v = map(heads_first, (q, k, v))
    return heads_first(F.scaled_dot_product_attention(q, k, v, **options))


def written(q: Tensor, k: Tensor, v: Tensor, on_scores: Part = lambda x: x) -> Tensor:
    """Products of matrices around a softmax."""
    q, k, v = map(heads_first, (q, k, v))
    scores = on_scores(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5)
    return heads_first(F.dropout(scores.softmax(dim=-1), 0.1, training=False) @ v)


def masked_fill(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = allowed(q, k)
    return written(q, k, v, lambda x: x.masked_fill(~mask, float("-inf")))


def where(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = allowed(q, k)
    return written(q, k, v, lambda x: torch.where(mask, x, torch.finfo(x.dtype).min))


def cast(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A softmax in another precision than the rest."""
    q, k, v = map(heads_first, (q / q.shape[-1], k, v))
    return heads_first((q @ k.mT).float().softmax(-1, dtype=torch.float32).to(v.dtype) @ v)


def windowed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As Swin adds its masks: groups apart from windows, and together again."""
    bias = penalty(q, k)[None, None, None]
    return written(q, k, v, lambda x: (x[None] + bias).view(x.shape))


def einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = map(heads_first, (q, k, v))
    weights = torch.einsum("bhid,bhjd->bhij", q, k * 0.5).softmax(dim=-1)
    return heads_first(torch.einsum("bhij,bhjd->bhid", weights, v))


def einsum_of_tokens(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bthd,bshd->bhts", q, k).softmax(dim=-1)
    return torch.einsum("bhts,bshd->bthd", weights, v)


def einsum_of_keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Keys before queries."""
    weights = torch.einsum("bshd,bthd->bsth", k, q).softmax(dim=1)
    return torch.einsum("bsth,bshd->bthd", weights, v)


def baddbmm(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """As diffusers does without the operator: heads in the batch, softmax in float."""
    groups, length, heads, _ = q.shape
    q, k, v = (heads_first(part).flatten(0, 1) for part in (q, k, v))
    given = torch.empty(len(q), length, k.shape[1], dtype=q.dtype)
    given, beta = (given, 0) if bias is None else (bias.expand(given.shape), 1)
    scores = torch.baddbmm(given, q, k.transpose(-1, -2), beta=beta, alpha=q.shape[-1] ** -0.5)
    y = torch.bmm(scores.float().softmax(dim=-1).to(v.dtype), v)
    return heads_first(y.unflatten(0, (groups, heads)))


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The softmax itself written out."""
    q, k, v = map(heads_first, (q, k, v))
    scores = q @ k.mT
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return heads_first((weights / weights.sum(dim=-1, keepdim=True)) @ v)


def turned(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Everything transposed: keys come first, then queries."""
    q, k, v = map(heads_first, (q, k, v))
    weights = (k @ q.mT).softmax(dim=-2)
    return heads_first((v.mT @ weights).mT)


SPELLINGS: dict[str, Spelling] = {
    "sdpa": sdpa,
    "causal": lambda q, k, v: sdpa(q, k, v, is_causal=True),
    "boolean": lambda q, k, v: sdpa(q, k, v, attn_mask=allowed(q, k)),
    "additive": lambda q, k, v: sdpa(q, k, v, attn_mask=penalty(q, k)),
    "matmul": written,
    "biased": lambda q, k, v: written(q, k, v, lambda x: x + penalty(q, k)),
    "capped": lambda q, k, v: written(q, k, v, lambda x: torch.tanh(x / 5) * 5),
    "masked_fill": masked_fill,
    "where": where,
    "cast": cast,
    "windowed": windowed,
    "einsum": einsum,
    "einsum_of_tokens": einsum_of_tokens,
    "einsum_of_keys": einsum_of_keys,
    "baddbmm": baddbmm,
    "baddbmm_biased": lambda q, k, v: baddbmm(q, k, v, penalty(q, k)),
    "by_hand": by_hand,
    "turned": turned,
}
MASKED = {
    "causal": "causal",
    **dict.fromkeys(("boolean", "additive", "biased", "windowed", "baddbmm_biased"), "masked"),
    **dict.fromkeys(("masked_fill", "where"), "masked"),
}
"""Where a spelling leaves keys out or prefers some, the word that says so."""
GROUPED: dict[str, Spelling] = {
    "enable_gqa": lambda q, k, v: sdpa(q, k, v, enable_gqa=True),
    "repeat_interleave": lambda q, k, v: sdpa(q, *(x.repeat_interleave(HEADS, 2) for x in (k, v))),
    "repeat": lambda q, k, v: written(q, k.repeat(1, 1, HEADS, 1), v.repeat(1, 1, HEADS, 1)),
    "expand": lambda q, k, v: einsum(q, *(x.expand(-1, -1, HEADS, -1) for x in (k, v))),
}
"""With one head of keys and values."""


def half(x: Tensor) -> Tensor:
    """Rotary positions of [G, L, N, D], the halves of D as pairs."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = angles(x)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def stacked(x: Tensor) -> Tensor:
    """Neighbours as pairs."""
    left, right = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles(x)
    return torch.stack([left * cos - right * sin, right * cos + left * sin], dim=-1).flatten(-2)


def strided(x: Tensor) -> Tensor:
    """Neighbours as pairs, written in place."""
    cos, sin = angles(x)
    turned = torch.empty_like(x)
    turned[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    turned[..., 1::2] = x[..., 1::2] * cos + x[..., 0::2] * sin
    return turned


def complex_pairs(x: Tensor) -> Tensor:
    """Neighbours as complex numbers."""
    cos, sin = angles(x)
    pairs = torch.view_as_complex(x.contiguous().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.complex(cos, sin)).flatten(-2)


def angles(x: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each token's position, [L, 1, D / 2]."""
    angle = 0.3 * torch.arange(x.shape[1], dtype=x.dtype)[:, None, None]
    angle = angle / torch.arange(1, x.shape[-1] // 2 + 1, dtype=x.dtype)
    return angle.cos(), angle.sin()


ROPES: dict[str, Part] = {
    "none": lambda x: x, "half": half, "stacked": stacked, "strided": strided,
    "complex": complex_pairs,
}  # fmt: skip
