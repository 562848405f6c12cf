"""Denoisers of `diffusers` of middle size, random weights: steps in which Python no longer counts.

The tiny ones are those of `foreign_models.py`; both hold their call as `turbo4d_inputs`, so that
`turbo4d explain --model turbo4d.tools.bench.peers.networks:svd` shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from turbo4d.tools import foreign_models
from turbo4d.tools.foreign_models import made, randn

BATCH, FRAMES, SIDE, WORDS, TEXT = 2, 5, 16, 16, 128


def stable_diffusion() -> nn.Module:
    """Stable Diffusion's four levels, a fifth as wide, of 32 x 32 latents."""
    return made(
        "UNet2DConditionModel",
        {
            "sample_size": 32,
            "block_out_channels": (64, 128, 192, 192),
            "layers_per_block": 2,
            "norm_num_groups": 32,
            "cross_attention_dim": TEXT,
            "attention_head_dim": 4,
        },
        {
            "sample": randn(BATCH, 4, 32, 32),
            "timestep": torch.tensor(701),
            "encoder_hidden_states": randn(BATCH, WORDS, TEXT),
        },
    )


def svd() -> nn.Module:
    """Stable Video Diffusion's four levels, a tenth as wide, of five 16 x 16 latents."""
    return made(
        "UNetSpatioTemporalConditionModel",
        {
            "block_out_channels": (32, 64, 128, 128),
            "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 96,
            "layers_per_block": 2,
            "cross_attention_dim": TEXT,
            "num_attention_heads": (1, 2, 4, 4),
            "num_frames": FRAMES,
        },
        {
            "sample": randn(BATCH, FRAMES, 8, SIDE, SIDE),
            "timestep": torch.tensor(1.5),
            "encoder_hidden_states": randn(BATCH, 1, TEXT),
            "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]).repeat(BATCH, 1),
        },
    )


def cogvideox() -> nn.Module:
    """CogVideoX of 12 blocks, 256 wide."""
    return made(
        "CogVideoXTransformer3DModel",
        {
            "num_attention_heads": 4,
            "attention_head_dim": 64,
            "in_channels": 16,
            "out_channels": 16,
            "time_embed_dim": 128,
            "text_embed_dim": TEXT,
            "num_layers": 12,
            "sample_width": SIDE,
            "sample_height": SIDE,
            "sample_frames": 17,
            "max_text_seq_length": WORDS,
        },
        {
            "hidden_states": randn(BATCH, FRAMES, 16, SIDE, SIDE),
            "encoder_hidden_states": randn(BATCH, WORDS, TEXT),
            "timestep": torch.tensor([701, 701]),
        },
    )


def latte() -> nn.Module:
    """Latte of 8 blocks of each kind, 256 wide."""
    return made(
        "LatteTransformer3DModel",
        {
            "num_attention_heads": 4,
            "attention_head_dim": 64,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 8,
            "cross_attention_dim": 256,
            "sample_size": SIDE,
            "patch_size": 2,
            "num_embeds_ada_norm": 1000,
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
            "caption_channels": TEXT,
            "video_length": FRAMES,
        },
        {
            "hidden_states": randn(BATCH, 4, FRAMES, SIDE, SIDE),
            "timestep": torch.tensor([701, 701]),
            "encoder_hidden_states": randn(BATCH, WORDS, TEXT),
        },
    )


def wan() -> nn.Module:
    """Wan of 12 blocks, 256 wide."""
    return made(
        "WanTransformer3DModel",
        {
            "num_attention_heads": 4,
            "attention_head_dim": 64,
            "in_channels": 16,
            "out_channels": 16,
            "text_dim": TEXT,
            "freq_dim": 64,
            "ffn_dim": 1024,
            "num_layers": 12,
            "rope_max_seq_len": 64,
        },
        {
            "hidden_states": randn(1, 16, FRAMES, SIDE, SIDE),
            "timestep": torch.tensor([701]),
            "encoder_hidden_states": randn(1, WORDS, TEXT),
        },
    )


def hunyuan_video() -> nn.Module:
    """HunyuanVideo of 4 blocks of two streams and 8 of one, 256 wide."""
    return made(
        "HunyuanVideoTransformer3DModel",
        {
            "in_channels": 16,
            "out_channels": 16,
            "num_attention_heads": 4,
            "attention_head_dim": 64,
            "num_layers": 4,
            "num_single_layers": 8,
            "num_refiner_layers": 2,
            "patch_size": 2,
            "text_embed_dim": TEXT,
            "pooled_projection_dim": 64,
            "rope_axes_dim": (16, 24, 24),
        },
        {
            "hidden_states": randn(1, 16, FRAMES, SIDE, SIDE),
            "timestep": torch.tensor([701]),
            "encoder_hidden_states": randn(1, WORDS, TEXT),
            "encoder_attention_mask": torch.ones(1, WORDS, dtype=torch.long),
            "pooled_projections": randn(1, 64),
            "guidance": torch.tensor([6000.0]),
        },
    )


def ltx_video() -> nn.Module:
    """LTX-Video of 12 blocks, 256 wide."""
    return made(
        "LTXVideoTransformer3DModel",
        {
            "in_channels": 32,
            "out_channels": 32,
            "num_attention_heads": 4,
            "attention_head_dim": 64,
            "cross_attention_dim": 256,
            "num_layers": 12,
            "caption_channels": TEXT,
        },
        {
            "hidden_states": randn(BATCH, FRAMES * 8 * 8, 32),
            "encoder_hidden_states": randn(BATCH, WORDS, TEXT),
            "timestep": torch.tensor([701, 701]),
            "encoder_attention_mask": torch.ones(BATCH, WORDS, dtype=torch.long),
            "num_frames": FRAMES,
            "height": 8,
            "width": 8,
        },
    )


MID: Mapping[str, Callable[[], nn.Module]] = {
    factory.__name__: factory
    for factory in (stable_diffusion, svd, cogvideox, latte, wan, hunyuan_video, ltx_video)
}


def network(name: str, size: str) -> nn.Module:
    """A denoiser with its call as `turbo4d_inputs`."""
    return {"mid": MID, "tiny": foreign_models.FACTORIES}[size][name]()
