"""Tiny video denoisers of the package `diffusers`, with random weights and one call of each.

Every factory here gives an `nn.Module` that holds its call as `turbo4d_inputs`, so that
`turbo4d explain --model turbo4d.tools.foreign_models:latte` shows it. All have two guidance
branches, and three frames where they know frames; the sizes are the smallest that keep two levels
of a UNet, or several blocks of a transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from turbo4d.models.random_weights import fill_random
from turbo4d.tools.failures import CallError

BATCH, FRAMES, SIDE, WORDS, TEXT = 2, 3, 8, 5, 16


@dataclass(frozen=True)
class Foreign:
    """A network of a package that is not ours.

    Args:
        name: of its class.
        factory: the function here that builds it.
        module: in eval mode.
        inputs: keyword arguments of one call.
        sample: which of them is the sample.
        level: which of them is the timestep.
        geometry: what option `geometry` is given.
    """

    name: str
    factory: str
    module: nn.Module
    inputs: Mapping[str, Any]
    sample: str
    level: str
    geometry: Mapping[str, int]

    def call(self, sample: Tensor, timestep: float | Tensor) -> dict[str, Any]:
        """The keyword arguments with another sample and timestep, both as the first ones were."""
        level = torch.full_like(self.inputs[self.level], float(timestep))
        return {**self.inputs, self.sample: sample, self.level: level}


def svd() -> nn.Module:
    """Stable Video Diffusion's denoiser."""
    return made(
        "UNetSpatioTemporalConditionModel",
        {
            "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            "block_out_channels": (32, 64),
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 24,
            "layers_per_block": 1,
            "cross_attention_dim": TEXT,
            "num_attention_heads": (2, 4),
            "num_frames": FRAMES,
        },
        {
            "sample": randn(BATCH, FRAMES, 8, SIDE, SIDE),
            "timestep": torch.tensor(1.5),
            "encoder_hidden_states": randn(BATCH, 1, TEXT),
            "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]).repeat(BATCH, 1),
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
            "cross_attention_dim": TEXT,
            "num_attention_heads": 2,
            "motion_num_attention_heads": 2,
            "motion_max_seq_length": 8,
        },
        {
            "sample": randn(BATCH, 4, FRAMES, SIDE, SIDE),
            "timestep": torch.tensor(701),
            "encoder_hidden_states": randn(BATCH * FRAMES, WORDS, TEXT),
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
            "cross_attention_dim": TEXT,
            "attention_head_dim": 8,
        },
        {
            "sample": randn(BATCH, 4, FRAMES, SIDE, SIDE),
            "timestep": torch.tensor(701),
            "encoder_hidden_states": randn(BATCH, WORDS, TEXT),
        },
    )


def stable_diffusion() -> nn.Module:
    """Stable Diffusion's image denoiser."""
    return made(
        "UNet2DConditionModel",
        {
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "cross_attention_dim": TEXT,
            "attention_head_dim": 2,
        },
        {
            "sample": randn(BATCH, 4, SIDE, SIDE),
            "timestep": torch.tensor(701),
            "encoder_hidden_states": randn(BATCH, WORDS, TEXT),
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
            "cross_attention_dim": TEXT,
            "attention_head_dim": 2,
        },
        {
            "sample": randn(BATCH, 4, FRAMES, SIDE, SIDE),
            "timestep": torch.tensor(701),
            "fps": torch.tensor([16, 16]),
            "image_latents": randn(BATCH, 4, FRAMES, SIDE, SIDE),
            "image_embeddings": randn(BATCH, TEXT),
            "encoder_hidden_states": randn(BATCH, WORDS, TEXT),
        },
    )


def cogvideox() -> nn.Module:
    """CogVideoX: text and video tokens in one attention, two streams between the blocks."""
    return made(
        "CogVideoXTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 16,
            "text_embed_dim": TEXT,
            "num_layers": 3,
            "sample_width": SIDE,
            "sample_height": SIDE,
            "sample_frames": 9,
            "max_text_seq_length": WORDS,
        },
        {
            "hidden_states": randn(BATCH, FRAMES, 4, SIDE, SIDE),
            "encoder_hidden_states": randn(BATCH, WORDS, TEXT),
            "timestep": torch.tensor([701, 701]),
        },
    )


def latte() -> nn.Module:
    """Latte: a spatial and a temporal transformer block in turn."""
    return made(
        "LatteTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 3,
            "cross_attention_dim": 32,
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
    """Wan: attention over all video tokens, text beside it."""
    return made(
        "WanTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "in_channels": 4,
            "out_channels": 4,
            "text_dim": TEXT,
            "freq_dim": 16,
            "ffn_dim": 48,
            "num_layers": 3,
            "rope_max_seq_len": 32,
        },
        {
            "hidden_states": randn(BATCH, 4, FRAMES, SIDE, SIDE),
            "timestep": torch.tensor([701, 701]),
            "encoder_hidden_states": randn(BATCH, WORDS, TEXT),
        },
    )


def hunyuan_video() -> nn.Module:
    """HunyuanVideo: blocks of two streams, then blocks of one."""
    return made(
        "HunyuanVideoTransformer3DModel",
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "num_single_layers": 2,
            "num_refiner_layers": 1,
            "patch_size": 2,
            "text_embed_dim": TEXT,
            "pooled_projection_dim": 8,
            "rope_axes_dim": (4, 6, 6),
        },
        {
            "hidden_states": randn(BATCH, 4, FRAMES, SIDE, SIDE),
            "timestep": torch.tensor([701, 701]),
            "encoder_hidden_states": randn(BATCH, WORDS, TEXT),
            "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
            "pooled_projections": randn(BATCH, 8),
            "guidance": torch.tensor([6000.0, 6000.0]),
        },
    )


def ltx_video() -> nn.Module:
    """LTX-Video: its sample comes as one row of tokens, frame after frame."""
    return made(
        "LTXVideoTransformer3DModel",
        {
            "in_channels": 8,
            "out_channels": 8,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "cross_attention_dim": 32,
            "num_layers": 3,
            "caption_channels": TEXT,
        },
        {
            "hidden_states": randn(BATCH, FRAMES * 4 * 4, 8),
            "encoder_hidden_states": randn(BATCH, WORDS, TEXT),
            "timestep": torch.tensor([701, 701]),
            "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
            "num_frames": FRAMES,
            "height": 4,
            "width": 4,
        },
    )


_VIDEO = {"batch": BATCH, "frames": FRAMES}
GEOMETRIES: Mapping[str, Mapping[str, int]] = {
    "stable_diffusion": {"batch": BATCH, "frames": 1},
    "ltx_video": {**_VIDEO, "height": SIDE // 2, "width": SIDE // 2},
}
FACTORIES: Mapping[str, Callable[[], nn.Module]] = {
    factory.__name__: factory
    for factory in (svd, animatediff, modelscope, stable_diffusion, i2vgen_xl,
                    cogvideox, latte, wan, hunyuan_video, ltx_video)
}  # fmt: skip


def build(factory: str) -> Foreign:
    """A network with its call and its geometry, by the name of its factory here."""
    module = FACTORIES[factory]()
    own: Any = module.turbo4d_inputs
    inputs: dict[str, Any] = own()[1]
    sample = "sample" if "sample" in inputs else "hidden_states"
    geometry = GEOMETRIES.get(factory, _VIDEO)
    return Foreign(type(module).__name__, factory, module, inputs, sample, "timestep", geometry)


def made(name: str, config: Mapping[str, Any], inputs: dict[str, Any]) -> nn.Module:
    try:
        import diffusers
    except ImportError as error:
        raise CallError(
            f"{name} comes from the package 'diffusers', which is not installed; "
            "run: pip install diffusers"
        ) from error
    module: nn.Module = getattr(diffusers, name)(**config)
    fill_random(module)
    call = {**inputs, "return_dict": False}
    module.turbo4d_inputs = lambda: ((), call)  # type: ignore[assignment]
    return module.eval().requires_grad_(False)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
