"""Transformers of `diffusers`: over frames apart, over all tokens, over text and video tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .making import made, randn
from .sizes import TINY, Size


def cogvideox(size: Size = TINY) -> nn.Module:
    """CogVideoX: text and video tokens in one attention, two streams between the blocks."""
    channels = size.of(4, 16)
    return made(
        "CogVideoXTransformer3DModel",
        {
            "num_attention_heads": size.of(2, 4),
            "attention_head_dim": size.of(16, 64),
            "in_channels": channels,
            "out_channels": channels,
            "time_embed_dim": size.of(16, 128),
            "text_embed_dim": size.text,
            "num_layers": size.of(3, 12),
            "sample_width": size.side,
            "sample_height": size.side,
            "sample_frames": 4 * (size.frames - 1) + 1,
            "max_text_seq_length": size.words,
        },
        {
            "hidden_states": randn(size.batch, size.frames, channels, size.side, size.side),
            "encoder_hidden_states": randn(size.batch, size.words, size.text),
            "timestep": _timestep(size.batch),
        },
    )


def latte(size: Size = TINY) -> nn.Module:
    """Latte: a spatial and a temporal transformer block in turn."""
    heads, depth = size.of(2, 4), size.of(16, 64)
    return made(
        "LatteTransformer3DModel",
        {
            "num_attention_heads": heads,
            "attention_head_dim": depth,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": size.of(3, 8),
            "cross_attention_dim": heads * depth,
            "sample_size": size.side,
            "patch_size": 2,
            "num_embeds_ada_norm": 1000,
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
            "caption_channels": size.text,
            "video_length": size.frames,
        },
        {
            "hidden_states": randn(size.batch, 4, size.frames, size.side, size.side),
            "timestep": _timestep(size.batch),
            "encoder_hidden_states": randn(size.batch, size.words, size.text),
        },
    )


def wan(size: Size = TINY) -> nn.Module:
    """Wan: attention over all video tokens, text beside it."""
    batch, channels = size.of(2, 1), size.of(4, 16)
    return made(
        "WanTransformer3DModel",
        {
            "num_attention_heads": size.of(2, 4),
            "attention_head_dim": size.of(12, 64),
            "in_channels": channels,
            "out_channels": channels,
            "text_dim": size.text,
            "freq_dim": size.of(16, 64),
            "ffn_dim": size.of(48, 1024),
            "num_layers": size.of(3, 12),
            "rope_max_seq_len": size.of(32, 64),
        },
        {
            "hidden_states": randn(batch, channels, size.frames, size.side, size.side),
            "timestep": _timestep(batch),
            "encoder_hidden_states": randn(batch, size.words, size.text),
        },
    )


def hunyuan_video(size: Size = TINY) -> nn.Module:
    """HunyuanVideo: blocks of two streams, then blocks of one."""
    batch, channels, pooled = size.of(2, 1), size.of(4, 16), size.of(8, 64)
    return made(
        "HunyuanVideoTransformer3DModel",
        {
            "in_channels": channels,
            "out_channels": channels,
            "num_attention_heads": size.of(2, 4),
            "attention_head_dim": size.of(16, 64),
            "num_layers": size.of(2, 4),
            "num_single_layers": size.of(2, 8),
            "num_refiner_layers": size.of(1, 2),
            "patch_size": 2,
            "text_embed_dim": size.text,
            "pooled_projection_dim": pooled,
            "rope_axes_dim": size.of((4, 6, 6), (16, 24, 24)),
        },
        {
            "hidden_states": randn(batch, channels, size.frames, size.side, size.side),
            "timestep": _timestep(batch),
            "encoder_hidden_states": randn(batch, size.words, size.text),
            "encoder_attention_mask": _mask(batch, size),
            "pooled_projections": randn(batch, pooled),
            "guidance": torch.tensor([6000.0] * batch),
        },
    )


def ltx_video(size: Size = TINY) -> nn.Module:
    """LTX-Video: its sample comes as one row of tokens, frame after frame."""
    channels, heads, depth, side = size.of(8, 32), size.of(2, 4), size.of(16, 64), size.side // 2
    return made(
        "LTXVideoTransformer3DModel",
        {
            "in_channels": channels,
            "out_channels": channels,
            "num_attention_heads": heads,
            "attention_head_dim": depth,
            "cross_attention_dim": heads * depth,
            "num_layers": size.of(3, 12),
            "caption_channels": size.text,
        },
        {
            "hidden_states": randn(size.batch, size.frames * side * side, channels),
            "encoder_hidden_states": randn(size.batch, size.words, size.text),
            "timestep": _timestep(size.batch),
            "encoder_attention_mask": _mask(size.batch, size),
            "num_frames": size.frames,
            "height": side,
            "width": side,
        },
    )


def _timestep(batch: int) -> Tensor:
    return torch.tensor([701] * batch)


def _mask(batch: int, size: Size) -> Tensor:
    """Which words there are: of a tiny network's second text, two fewer."""
    mask = torch.ones(batch, size.words, dtype=torch.long)
    mask[1:, size.words - size.of(2, 0) :] = 0
    return mask
