"""The SV4D family's UNet configurations, under the argument names of the public files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from .errors import ConfigError

GROUPS = 32

# Options of the public files that select another network than the SV4D family's. Each is accepted
# at these values only, so that nothing a file asks for is silently left out.
_ONLY: Mapping[str, tuple[object, ...]] = {
    "conv_resample": (True,),
    "dims": (2,),
    "disable_temporal_crossattention": (False,),
    "dropout": (0,),
    "extra_ff_mix_layer": (True,),
    "legacy": (False,),
    "max_ddpm_temb_period": (10000,),
    "num_classes": ("sequential",),
    "num_heads": (-1,),
    "num_heads_upsample": (-1,),
    "replicate_time_mix_bug": (False, True),
    "resblock_updown": (False,),
    "spatial_transformer_attn_type": ("softmax", "softmax-xformers"),
    "time_block_merge_strategy": ("learned_with_images",),
    "time_kernel_size": ((3, 1, 1),),
    "time_mix_legacy": (False,),
    "transformer_depth": (1,),
    "transformer_depth_middle": (None, 1),
    "use_checkpoint": (False,),
    "use_linear_in_transformer": (True,),
    "use_motion_attention": (True,),
    "use_scale_shift_norm": (False,),
    "use_spatial_context": (True,),
    "use_spatial_transformer": (True,),
    "use_temporal_resblock": (True,),
    "attention_3d": ("shipped", "full"),
}
_SEQUENCES = ("attention_resolutions", "channel_mult", "time_kernel_size")
_FLAGS = ("separate_motion_merge_factor", "use_3d_attention", "use_camera_emb")
_POSITIVE = (
    "in_channels", "out_channels", "model_channels", "num_res_blocks", "num_head_channels",
    "context_dim", "motion_context_dim", "adm_in_channels", "latent_size",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class SV4DConfig:
    """One UNet of the family; the defaults are SV4D's public file.

    Args:
        frames, views: F and V of the flat image axis (b f v); None takes them from each call.
        latent_size: side of the square latent, in latent pixels, that the sampling runs use.
        use_3d_attention: SV4D 2.0's camera path. `attention_3d="shipped"` groups V consecutive
            entries of the flat (b v h w) axis, as the public code does; `"full"` attends over all
            views and pixels of a frame, as the paper's text says.
        replicate_time_mix_bug: accepted and without effect, as in the public code.
        Every other field keeps its meaning in the public configuration files.

    Raises:
        ConfigError: for a value that asks for a network not implemented here.

    Source: scripts/sampling/configs/{sv4d,sv4d2,sv4d2_8views}.yaml of Stability's
    generative-models, commit 0ad7de9.
    """

    in_channels: int = 8
    out_channels: int = 4
    model_channels: int = 320
    channel_mult: Sequence[int] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_resolutions: Sequence[int] = (4, 2, 1)
    num_head_channels: int = 64
    context_dim: int = 1024
    motion_context_dim: int = 4
    adm_in_channels: int = 1280
    time_block_merge_factor: float = 0.0
    separate_motion_merge_factor: bool = False
    use_camera_emb: bool = False
    use_3d_attention: bool = False
    attention_3d: Literal["shipped", "full"] = "shipped"
    frames: int | None = None
    views: int | None = None
    latent_size: int = 72
    conv_resample: bool = True
    dims: int = 2
    disable_temporal_crossattention: bool = False
    dropout: float = 0.0
    extra_ff_mix_layer: bool = True
    legacy: bool = False
    max_ddpm_temb_period: int = 10000
    num_classes: str = "sequential"
    num_heads: int = -1
    num_heads_upsample: int = -1
    replicate_time_mix_bug: bool = True
    resblock_updown: bool = False
    spatial_transformer_attn_type: str = "softmax"
    time_block_merge_strategy: str = "learned_with_images"
    time_kernel_size: Sequence[int] = (3, 1, 1)
    time_mix_legacy: bool = False
    transformer_depth: int = 1
    transformer_depth_middle: int | None = None
    use_checkpoint: bool = False
    use_linear_in_transformer: bool = True
    use_motion_attention: bool = True
    use_scale_shift_norm: bool = False
    use_spatial_context: bool = True
    use_spatial_transformer: bool = True
    use_temporal_resblock: bool = True

    def __post_init__(self) -> None:
        for name in _SEQUENCES:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, accepted in _ONLY.items():
            got = getattr(self, name)
            if got not in accepted:
                wanted = " or ".join(repr(value) for value in accepted)
                raise ConfigError(f"SV4DConfig: {name} is {got!r}; only {wanted} is implemented.")
        self._check_kinds()
        self._check_levels()
        self._check_combinations()

    def _check_kinds(self) -> None:
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(
                    f"SV4DConfig: {name} is {getattr(self, name)!r}; wanted True or False."
                )
        if not isinstance(self.time_block_merge_factor, int | float):
            raise ConfigError(
                f"SV4DConfig: time_block_merge_factor is {self.time_block_merge_factor!r}; "
                f"wanted a number."
            )
        for name in _POSITIVE:
            _check_positive(name, getattr(self, name))
        for name in ("frames", "views"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))
        for multiple in self.channel_mult:
            _check_positive("channel_mult", multiple)

    def _check_levels(self) -> None:
        scales = [2**level for level in range(len(self.channel_mult))]
        for factor in self.attention_resolutions:
            if factor not in scales:
                raise ConfigError(
                    f"SV4DConfig: attention_resolutions has {factor}; with "
                    f"{len(self.channel_mult)} levels the downsampling factors are {scales}."
                )
        for multiple in self.channel_mult:
            channels = multiple * self.model_channels
            for divisor, name in ((GROUPS, "norm groups"), (self.num_head_channels, "head size")):
                if channels % divisor:
                    raise ConfigError(
                        f"SV4DConfig: a level has {channels} channels (model_channels "
                        f"{self.model_channels} x {multiple}); wanted a multiple of the "
                        f"{name} {divisor}."
                    )

    def _check_combinations(self) -> None:
        if self.use_camera_emb and self.adm_in_channels != self.embed_channels:
            raise ConfigError(
                f"SV4DConfig: adm_in_channels is {self.adm_in_channels}; use_camera_emb feeds the "
                f"view embedding with the time embedding and wants 4 x model_channels = "
                f"{self.embed_channels}."
            )
        if self.attention_3d != "shipped" and not self.use_3d_attention:
            raise ConfigError(
                f"SV4DConfig: attention_3d is {self.attention_3d!r} but use_3d_attention is False; "
                f"set use_3d_attention=True or leave attention_3d at 'shipped'."
            )

    @property
    def embed_channels(self) -> int:
        """Width of the time embedding, 4 x model_channels."""
        return 4 * self.model_channels

    @classmethod
    def named(cls, name: str) -> SV4DConfig:
        """The configuration called `name`.

        Args:
            name: "sv4d", "sv4d2", "sv4d2_8views" (the released networks), "nano" (trained here)
                or "tiny" (the smallest network with every part, for tests).

        Raises:
            ConfigError: for another name.
        """
        if name not in _NAMED:
            choices = ", ".join(repr(choice) for choice in sorted(_NAMED))
            raise ConfigError(f"SV4DConfig: no configuration is named {name!r}; choose {choices}.")
        return cls(**_NAMED[name])


def _check_positive(name: str, got: object) -> None:
    if isinstance(got, bool) or not isinstance(got, int) or got < 1:
        raise ConfigError(f"SV4DConfig: {name} is {got!r}; wanted a positive whole number.")


_SV4D2: Mapping[str, Any] = {"separate_motion_merge_factor": True, "use_camera_emb": True}
_NAMED: Mapping[str, Mapping[str, Any]] = {
    "sv4d": {"frames": 5, "views": 8},
    "sv4d2": {**_SV4D2, "use_3d_attention": True, "frames": 12, "views": 4},
    "sv4d2_8views": {**_SV4D2, "frames": 5, "views": 8},
    "nano": {
        "model_channels": 32, "channel_mult": (1, 2, 4), "num_res_blocks": 1,
        "attention_resolutions": (2, 1), "num_head_channels": 32, "context_dim": 64,
        "adm_in_channels": 256, "frames": 5, "views": 4, "latent_size": 16,
    },
    "tiny": {
        "model_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1,
        "attention_resolutions": (2, 1), "num_head_channels": 16, "context_dim": 24,
        "adm_in_channels": 128, "frames": 3, "views": 4, "latent_size": 16,
    },
}  # fmt: skip
