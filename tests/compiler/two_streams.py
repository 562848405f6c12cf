"""Denoisers whose blocks update text and video together, as small as they stay true to the public
ones: CogVideoX (shared norms and feed-forward, attention over the joined tokens), MMDiT (weights of
its own for each stream; the last block gives no text), and HunyuanVideo (such blocks, then blocks
over the joined stream).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS, HEADS, TEXT = 16, 2, 12
Values = tuple[Tensor, ...]
# Called at each block with its number, what comes in, and what the block makes of that.
Visitor = Callable[[int, Values, Callable[[Values], Values]], Values]


def plain(number: int, streams: Values, run: Callable[[Values], Values]) -> Values:
    """Every block is computed."""
    return run(streams)


def sinusoid(level: Tensor, channels: int) -> Tensor:
    """Sines and cosines of a level, one row per sample."""
    speed = torch.exp(-math.log(10000) * torch.arange(channels // 2) / (channels // 2))
    angles = level.float()[:, None] * speed[None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def heads(x: Tensor) -> Tensor:
    """[B, L, C] to [B, N, L, D]."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def rotate(x: Tensor) -> Tensor:
    """Rotary positions along the tokens of [B, N, L, D]."""
    angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * 0.1
    left, right = x.chunk(2, dim=-1)
    return torch.cat(
        [left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()], -1
    )


def mlp() -> nn.Sequential:
    """A feed-forward."""
    return nn.Sequential(
        nn.Linear(CHANNELS, 2 * CHANNELS), nn.GELU("tanh"), nn.Linear(2 * CHANNELS, CHANNELS)
    )


class CogNorm(nn.Module):
    """One norm for both streams, with shifts, scales and gates of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(CHANNELS, 6 * CHANNELS)
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, video: Tensor, text: Tensor, emb: Tensor) -> tuple[Tensor, ...]:
        a, b, gate, c, d, gate_text = self.linear(F.silu(emb))[:, None].chunk(6, dim=-1)
        video = self.norm(video) * (1 + b) + a
        return video, self.norm(text) * (1 + d) + c, gate, gate_text


class CogBlock(nn.Module):
    """CogVideoX: joint attention, then one feed-forward over both, each gated per stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = CogNorm(), CogNorm()
        self.qkv = nn.ModuleList(nn.Linear(CHANNELS, CHANNELS) for _ in range(3))
        self.norm_qk = nn.ModuleList(nn.LayerNorm(CHANNELS // HEADS) for _ in range(2))
        self.out = nn.Linear(CHANNELS, CHANNELS)
        self.ff = mlp()

    def attend(self, video: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        words = text.shape[1]
        joined = torch.cat([text, video], dim=1)
        q, k, v = (heads(project(joined)) for project in self.qkv)
        q, k = (norm(part) for norm, part in zip(self.norm_qk, (q, k), strict=True))
        q, k = (torch.cat([p[:, :, :words], rotate(p[:, :, words:])], dim=2) for p in (q, k))
        y = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        text, video = y.split([words, y.shape[1] - words], dim=1)
        return video, text

    def forward(self, video: Tensor, text: Tensor, emb: Tensor) -> tuple[Tensor, Tensor]:
        words = text.shape[1]
        norm_video, norm_text, gate, gate_text = self.norm1(video, text, emb)
        of_video, of_text = self.attend(norm_video, norm_text)
        video = video + gate * of_video
        text = text + gate_text * of_text
        norm_video, norm_text, gate, gate_text = self.norm2(video, text, emb)
        y = self.ff(torch.cat([norm_text, norm_video], dim=1))
        return video + gate * y[:, words:], text + gate_text * y[:, :words]


class CogDiT(nn.Module):
    """[B, F, C, H, W]; text and patches are joined once, and taken apart at once."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(4, CHANNELS, 2, stride=2)
        self.words = nn.Linear(TEXT, CHANNELS)
        self.blocks = nn.ModuleList(CogBlock() for _ in range(depth))
        self.norm_final, self.norm_out = nn.LayerNorm(CHANNELS), nn.LayerNorm(CHANNELS)
        self.shift = nn.Linear(CHANNELS, 2 * CHANNELS)
        self.last = nn.Linear(CHANNELS, 16)

    def forward(self, hidden_states: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
        return self.run(plain, hidden_states, text, timestep)

    def run(self, visit: Visitor, hidden_states: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
        """As a call, with a visitor at each block."""
        batch, frames, channels, height, width = hidden_states.shape
        emb = sinusoid(timestep, CHANNELS).to(text.dtype)
        patches = self.patch(hidden_states.reshape(-1, channels, height, width))
        patches = patches.view(batch, frames, *patches.shape[1:]).flatten(3).transpose(2, 3)
        words = self.words(text)
        joined = torch.cat([words, patches.flatten(1, 2)], dim=1).contiguous()
        text, video = joined[:, : words.shape[1]], joined[:, words.shape[1] :]
        for number, block in enumerate(self.blocks):
            video, text = visit(number, (video, text), lambda s, block=block: block(*s, emb))
        joined = self.norm_final(torch.cat([text, video], dim=1))
        shift, scale = self.shift(F.silu(emb))[:, None].chunk(2, dim=-1)
        video = self.norm_out(joined[:, words.shape[1] :]) * (1 + scale) + shift
        video = self.last(video).view(batch, frames, height // 2, width // 2, channels, 2, 2)
        return video.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)


class Stream(nn.Module):
    """One stream's side of a joint block: modulation, projections, feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.modulation = nn.Linear(CHANNELS, 6 * CHANNELS)
        self.norm = nn.LayerNorm(CHANNELS, elementwise_affine=False)
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.out = nn.Linear(CHANNELS, CHANNELS)
        self.ff = mlp()

    def begin(self, x: Tensor, emb: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Query, key and value; and what `end` needs of the modulation."""
        shift, scale, *rest = self.modulation(F.silu(emb))[:, None].chunk(6, dim=-1)
        q, k, v = self.qkv(self.norm(x) * (1 + scale) + shift).chunk(3, dim=-1)
        return [heads(q), heads(k), heads(v)], rest

    def end(self, x: Tensor, attended: Tensor, rest: list[Tensor]) -> Tensor:
        gate, shift, scale, gate_ff = rest
        x = x + gate * self.out(attended)
        return x + gate_ff * self.ff(self.norm(x) * (1 + scale) + shift)


class DualBlock(nn.Module):
    """MMDiT, and HunyuanVideo's first blocks; without `both` the text ends here."""

    def __init__(self, both: bool = True) -> None:
        super().__init__()
        self.video, self.text, self.both = Stream(), Stream(), both

    def forward(self, video: Tensor, text: Tensor, emb: Tensor) -> tuple[Tensor, Tensor]:
        of_video, rest = self.video.begin(video, emb)
        of_text, rest_text = self.text.begin(text, emb)
        of_video[0], of_video[1] = rotate(of_video[0]), rotate(of_video[1])
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(of_video, of_text, strict=True))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = video.shape[1]
        video = self.video.end(video, y[:, :tokens], rest)
        return video, self.text.end(text, y[:, tokens:], rest_text) if self.both else text


class SingleBlock(nn.Module):
    """HunyuanVideo's later blocks: one stream of all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = Stream()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        (q, k, v), rest = self.stream.begin(x, emb)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.stream.end(x, y, rest)


class DualDiT(nn.Module):
    """[B, C, F, H, W]; the text comes in beside the stream."""

    def __init__(self, dual: int = 2, single: int = 0, ending: bool = False) -> None:
        super().__init__()
        self.patch = nn.Conv3d(4, CHANNELS, (1, 2, 2), stride=(1, 2, 2))
        self.words = nn.Linear(TEXT, CHANNELS)
        self.dual = nn.ModuleList(DualBlock() for _ in range(dual))
        self.ending = DualBlock(both=False) if ending else None
        self.single = nn.ModuleList(SingleBlock() for _ in range(single))
        self.norm = nn.LayerNorm(CHANNELS)
        self.last = nn.Linear(CHANNELS, 16)

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return self.run(plain, x, t, text)

    def run(self, visit: Visitor, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """As a call, with a visitor at each block."""
        batch, channels, frames, height, width = x.shape
        emb = sinusoid(t, CHANNELS).to(x.dtype)
        video, words = self.patch(x).flatten(2).transpose(1, 2), self.words(text)
        tokens = video.shape[1]
        for number, block in enumerate(self.dual):
            video, words = visit(number, (video, words), lambda s, block=block: block(*s, emb))
        if (ending := self.ending) is not None:
            end = (video,)
            (video,) = visit(len(self.dual), end, lambda s: ending(*s, words, emb)[:1])
        if self.single:
            joined = torch.cat([video, words], dim=1)
            for number, block in enumerate(self.single, len(self.dual)):
                (joined,) = visit(number, (joined,), lambda s, block=block: (block(*s, emb),))
            video = joined[:, :tokens]
        video = self.last(self.norm(video))
        video = video.view(batch, frames, height // 2, width // 2, channels, 2, 2)
        return video.permute(0, 4, 1, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)
