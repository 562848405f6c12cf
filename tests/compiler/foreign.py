"""Small denoisers that are not SV4D, each written as such networks are written elsewhere.

Together they use what a captured graph must survive: in-place operators, views of rearranged
memory, chunk and unbind, literal tensors, tables held as plain attributes, grad-mode switches,
and attention written out by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.compiler.two_streams import CogDiT, DualDiT


def sinusoid(level: Tensor, channels: int) -> Tensor:
    """Sines and cosines of a level, one row per image."""
    speed = torch.exp(-math.log(10000) * torch.arange(channels // 2) / (channels // 2))
    angles = level.float()[:, None] * speed[None].to(level.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Attention(nn.Module):
    """Multi-head attention over [G, L, C], from one fused projection or from a context."""

    def __init__(self, channels: int, context: int | None = None, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels, bias=False)
        self.kv = nn.Linear(context or channels, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        groups, length, channels = x.shape
        q = self.q(x).view(groups, length, self.heads, -1).transpose(1, 2)
        kv = self.kv(x if context is None else context)
        kv = kv.unflatten(-1, (2, self.heads, channels // self.heads)).permute(2, 0, 3, 1, 4)
        k, v = kv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).contiguous().view(groups, length, channels))


class Transformer(nn.Module):
    """Pre-norm attention, cross-attention where there is a context, feed-forward."""

    def __init__(self, channels: int, context: int | None = None) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.attention = Attention(channels)
        self.cross = Attention(channels, context) if context else None
        self.ff = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        if self.cross is not None:
            x = x + self.cross(self.norms[1](x), context)
        return x + self.ff(self.norms[2](x))


class VideoLevel(nn.Module):
    """A residual convolution, then spatial and temporal transformers, each a residual module."""

    def __init__(self, channels: int, text: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.embed = nn.Linear(32, channels)
        self.norm = nn.GroupNorm(4, channels)
        self.proj = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.spatial = Transformer(channels, text)
        self.temporal = Transformer(channels)

    def forward(self, x: Tensor, emb: Tensor, text: Tensor, frames: int) -> Tensor:
        shift = self.embed(emb)[:, :, None, None]
        hidden = self.conv(F.silu(self.norm(x)))
        hidden += shift
        x = x + F.dropout(hidden, 0.1, self.training)
        images, channels, height, width = x.shape
        tokens = self.proj[0](x).permute(0, 2, 3, 1).reshape(images, -1, channels)
        tokens = self.spatial(tokens, text.repeat_interleave(frames, dim=0))
        x = x + tokens.transpose(1, 2).view(images, channels, height, width)
        tokens = x.view(-1, frames, channels, height * width).permute(0, 3, 1, 2)
        tokens = self.temporal(tokens.reshape(-1, frames, channels))
        tokens = tokens.view(-1, height * width, frames, channels).permute(0, 2, 3, 1)
        return x + self.proj[1](tokens.reshape(x.shape))


class VideoUNet(nn.Module):
    """A factorised video UNet over the flat (b f) axis, with a skip and text tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 32))
        self.first = nn.Conv2d(4, 16, 3, padding=1)
        self.high = VideoLevel(16, 12)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.low = VideoLevel(32, 12)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.join = nn.Conv2d(32, 16, 1)
        self.last_level = VideoLevel(16, 12)
        self.last = nn.Conv2d(16, 4, 3, padding=1)

    @torch.no_grad()
    def forward(self, sample: Tensor, timestep: Tensor, *, cond: Mapping[str, Tensor]) -> Tensor:
        text = cond["text"]
        frames = sample.shape[0] // text.shape[0]
        emb = self.time(sinusoid(timestep.expand(sample.shape[0]), 16).to(sample.dtype))
        skip = self.high(self.first(sample), emb, text, frames)
        deep = self.up(self.low(self.down(skip), emb, text, frames))
        joined = self.join(torch.cat([deep, skip], dim=1))
        return self.last(self.last_level(joined, emb, text, frames))


class JointBlock(nn.Module):
    """Modulated joint attention over text and video tokens, with its softmax written out."""

    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.modulation = nn.Linear(channels, 6 * channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU("tanh"), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor, emb: Tensor, rope: Tensor) -> Tensor:
        a, b, gate, c, d, gate_mlp = self.modulation(F.silu(emb))[:, None].chunk(6, dim=-1)
        x = x + gate * self._attend(self.norm(x) * (1 + a) + b, rope)
        return x + gate_mlp * self.mlp(self.norm(x) * (1 + c) + d)

    def _attend(self, x: Tensor, rope: Tensor) -> Tensor:
        batch, length, channels = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = (self._rotate(part, rope) for part in (q, k))
        scores = q @ k.transpose(-2, -1) * (channels // self.heads) ** -0.5
        weights = scores.float().softmax(dim=-1).to(v.dtype)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, length, channels))

    @staticmethod
    def _rotate(x: Tensor, rope: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=-1)
        cos, sin = rope[0].to(x.dtype), rope[1].to(x.dtype)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


class JointDiT(nn.Module):
    """A diffusion transformer over all tokens of a video and its text; [B, C, F, H, W]."""

    def __init__(self, channels: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv3d(4, channels, (1, 2, 2), stride=(1, 2, 2))
        self.text = nn.Linear(12, channels)
        self.blocks = nn.ModuleList(JointBlock(channels) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)
        self.last = nn.Linear(channels, 4 * 4)
        # A plain attribute: neither a parameter nor a buffer.
        self.rope = torch.stack([torch.linspace(0, 1, 60).cos(), torch.linspace(0, 1, 60).sin()])
        self.channels = channels

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        batch, _, frames, height, width = x.shape
        scale = torch.tensor([0.5, 2.0], dtype=x.dtype)
        emb = sinusoid(t, self.channels).to(x.dtype) * scale[0]
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        words = self.text(text)
        joint = torch.cat([words, tokens], dim=1)
        rope = self.rope[:, : joint.shape[1], None].expand(-1, -1, self.channels // 4)
        for block in self.blocks:
            joint = block(joint, emb, rope)
        tokens = self.last(self.norm(joint[:, words.shape[1] :]))
        tokens = tokens.view(batch, frames, height // 2, width // 2, 4, 2, 2)
        return tokens.permute(0, 4, 1, 2, 5, 3, 6).reshape(x.shape)


class MultiViewNet(nn.Module):
    """Convolutions, then spatial, camera and motion attention in turn, over flat (b v f) images."""

    def __init__(self, channels: int = 16, views: int = 3) -> None:
        super().__init__()
        self.views = views
        self.turbo4d_geometry = {"views": views}
        self.time = nn.Linear(16, channels)
        self.first = nn.Conv2d(4, channels, 3, padding=1)
        self.norm = nn.GroupNorm(4, channels)
        self.spatial = Transformer(channels, 12)
        self.camera = Transformer(channels)
        self.motion = Transformer(channels)
        self.out = nn.Linear(channels, channels)
        self.last = nn.Conv2d(channels, 4, 3, padding=1)

    def forward(self, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        emb = self.time(sinusoid(sigma.log() / 4, 16).to(x.dtype))
        hidden = self.first(x) + emb[:, :, None, None]
        images, channels, height, width = hidden.shape
        batch, views, pixels = text.shape[0], self.views, height * width
        tokens = self.norm(hidden).view(images, channels, pixels).transpose(1, 2)
        tokens = self.spatial(tokens, text.repeat_interleave(images // batch, dim=0))
        grid = tokens.reshape(batch, views, -1, pixels, channels)
        camera = self.camera(grid.permute(0, 2, 3, 1, 4).reshape(-1, views, channels))
        grid = camera.view(batch, -1, pixels, views, channels).permute(0, 3, 1, 2, 4)
        frames = grid.shape[2]
        motion = self.motion(grid.transpose(2, 3).reshape(-1, frames, channels))
        grid = motion.view(batch, views, pixels, frames, channels).transpose(2, 3)
        tokens = self.out(grid.flatten(0, 2)).transpose(1, 2)
        return self.last(hidden + tokens.reshape(hidden.shape))


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def video_unet() -> tuple[nn.Module, dict[str, object]]:
    """2 branches of 3 frames of 8 x 8."""
    cond = {"text": _randn(2, 5, 12)}
    return VideoUNet(), {"sample": _randn(6, 4, 8, 8), "timestep": torch.tensor([7]), "cond": cond}


def joint_dit() -> tuple[nn.Module, dict[str, object]]:
    """2 branches of 3 frames of 8 x 8, 48 video tokens after 5 of text."""
    level = torch.tensor([0.3, 0.3])
    return JointDiT(), {"x": _randn(2, 4, 3, 8, 8), "t": level, "text": _randn(2, 5, 12)}


def multi_view() -> tuple[nn.Module, dict[str, object]]:
    """2 branches of 3 views of 2 frames of 8 x 8."""
    level = torch.full((12,), 3.0)
    return MultiViewNet(), {"x": _randn(12, 4, 8, 8), "sigma": level, "text": _randn(2, 5, 12)}


def cog_dit() -> tuple[nn.Module, dict[str, object]]:
    """2 branches of 3 frames of 8 x 8, text and video joined before the first block."""
    level = torch.tensor([7.0, 7.0])
    text = _randn(2, 5, 12)
    return CogDiT(), {"hidden_states": _randn(2, 3, 4, 8, 8), "text": text, "timestep": level}


def mm_dit() -> tuple[nn.Module, dict[str, object]]:
    """As `joint_dit`, in two streams; the last block gives no text."""
    return DualDiT(ending=True), joint_dit()[1]


def hunyuan_dit() -> tuple[nn.Module, dict[str, object]]:
    """As `joint_dit`, in two streams and then in one."""
    return DualDiT(single=2), joint_dit()[1]


NETWORKS: dict[str, Callable[[], tuple[nn.Module, dict[str, object]]]] = {
    "video_unet": video_unet,
    "joint_dit": joint_dit,
    "multi_view": multi_view,
    "cog_dit": cog_dit,
    "mm_dit": mm_dit,
    "hunyuan_dit": hunyuan_dit,
}


def build(name: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, dict[str, object]]:
    """A network in eval mode with seeded weights, and the keyword arguments of one call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, inputs = NETWORKS[name]()
    return module.eval().to(dtype), {key: _cast(value, dtype) for key, value in inputs.items()}


def _cast(value: object, dtype: torch.dtype) -> object:
    if isinstance(value, dict):
        return {key: _cast(inner, dtype) for key, inner in value.items()}
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    return value
