"""UNets of `diffusers`: of an image, and of frames."""

from __future__ import annotations

import torch
from torch import nn

from .making import made, randn
from .sizes import TINY, Size


def svd(size: Size = TINY) -> nn.Module:
    """Stable Video Diffusion's denoiser; of middle size its own four levels, a tenth as wide."""
    crossed, below = "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"
    above, crossed_up = "UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"
    times = size.of(8, 32)
    return made(
        "UNetSpatioTemporalConditionModel",
        {
            "down_block_types": (*(crossed,) * size.of(1, 3), below),
            "up_block_types": (above, *(crossed_up,) * size.of(1, 3)),
            "block_out_channels": size.of((32, 64), (32, 64, 128, 128)),
            "addition_time_embed_dim": times,
            "projection_class_embeddings_input_dim": 3 * times,
            "layers_per_block": size.of(1, 2),
            "cross_attention_dim": size.text,
            "num_attention_heads": size.of((2, 4), (1, 2, 4, 4)),
            "num_frames": size.frames,
        },
        {
            "sample": randn(size.batch, size.frames, 8, size.side, size.side),
            "timestep": torch.tensor(1.5),
            "encoder_hidden_states": randn(size.batch, 1, size.text),
            "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]).repeat(size.batch, 1),
        },
    )


def stable_diffusion(size: Size = TINY) -> nn.Module:
    """Stable Diffusion's image denoiser; of middle size its own four levels, a fifth as wide."""
    side = size.of(size.side, 2 * size.side)  # an image alone is larger than a video's frames
    return made(
        "UNet2DConditionModel",
        {
            "sample_size": size.of(None, side),
            "down_block_types": (*("CrossAttnDownBlock2D",) * size.of(1, 3), "DownBlock2D"),
            "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * size.of(1, 3)),
            "block_out_channels": size.of((32, 64), (64, 128, 192, 192)),
            "layers_per_block": size.of(1, 2),
            "norm_num_groups": size.of(8, 32),
            "cross_attention_dim": size.text,
            "attention_head_dim": size.of(2, 4),
        },
        {
            "sample": randn(size.batch, 4, side, side),
            "timestep": torch.tensor(701),
            "encoder_hidden_states": randn(size.batch, size.words, size.text),
        },
    )


def animatediff() -> nn.Module:
    """AnimateDiff's denoiser: an image UNet with motion modules."""
    return made(
        "UNetMotionModel",
        {
            "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
            "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "cross_attention_dim": TINY.text,
            "num_attention_heads": 2,
            "motion_num_attention_heads": 2,
            "motion_max_seq_length": 8,
        },
        {
            "sample": randn(TINY.batch, 4, TINY.frames, TINY.side, TINY.side),
            "timestep": torch.tensor(701),
            "encoder_hidden_states": randn(TINY.batch * TINY.frames, TINY.words, TINY.text),
        },
    )


def modelscope() -> nn.Module:
    """ModelScope's text-to-video denoiser."""
    return made(
        "UNet3DConditionModel",
        {
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "norm_num_groups": 32,
            "cross_attention_dim": TINY.text,
            "attention_head_dim": 8,
        },
        {
            "sample": randn(TINY.batch, 4, TINY.frames, TINY.side, TINY.side),
            "timestep": torch.tensor(701),
            "encoder_hidden_states": randn(TINY.batch, TINY.words, TINY.text),
        },
    )


def i2vgen_xl() -> nn.Module:
    """I2VGen-XL's image-to-video denoiser."""
    return made(
        "I2VGenXLUNet",
        {
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "cross_attention_dim": TINY.text,
            "attention_head_dim": 2,
        },
        {
            "sample": randn(TINY.batch, 4, TINY.frames, TINY.side, TINY.side),
            "timestep": torch.tensor(701),
            "fps": torch.tensor([16, 16]),
            "image_latents": randn(TINY.batch, 4, TINY.frames, TINY.side, TINY.side),
            "image_embeddings": randn(TINY.batch, TINY.text),
            "encoder_hidden_states": randn(TINY.batch, TINY.words, TINY.text),
        },
    )
