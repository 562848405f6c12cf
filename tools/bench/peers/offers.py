"""Which package covers which model, and the settings it is run with.

Settings are those that a package documents first, and for what looks at the sample one more, since
random weights change from step to step otherwise than trained ones and may never pass a threshold.
Left out, because the package cannot run them: first-block cache and MagCache on Latte (its blocks
hold values of two shapes), FasterCache on LTX-Video (rows of tokens), cache-dit on Latte (it has no
adapter), tomesd on SVD (it reads the sides of a batch of images), and hooks of diffusers on UNets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNETS = ("stable_diffusion", "svd")
TRANSFORMERS = ("cogvideox", "latte", "wan", "hunyuan_video", "ltx_video")


@dataclass(frozen=True)
class Offer:
    """A package under a setting.

    Args:
        package: as it is installed.
        label: the setting in short.
        module: of this folder, whose `prepare` takes `settings`.
        settings: keyword arguments.
        models: that it covers.
        compiled: whether it is also run under torch.compile.
        looks: whether it decides by what it sees of the sample, against a threshold.
    """

    package: str
    label: str
    module: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    models: tuple[str, ...] = TRANSFORMERS
    compiled: bool = False
    looks: bool = False


def _without(*models: str) -> tuple[str, ...]:
    return tuple(model for model in TRANSFORMERS if model not in models)


def _diffusers(
    label: str,
    cache: str,
    models: tuple[str, ...] = TRANSFORMERS,
    compiled: bool = False,
    **more: Any,
) -> Offer:
    looks = cache in ("first-block", "mag")
    settings = {"cache": cache, **more}
    return Offer("diffusers", label, "diffusers_cache", settings, models, compiled, looks)


def _dbcache(label: str, compiled: bool = False, **settings: Any) -> Offer:
    first = {"Fn_compute_blocks": 1, "max_warmup_steps": 4, **settings}
    looks = "mask" not in settings
    return Offer("cache-dit", label, "dbcache", first, _without("latte"), compiled, looks)


_BLOCK_WISE = _without("latte")
_TAYLOR: Mapping[str, Any] = {"cache_interval": 5, "disable_cache_before_step": 3}

OFFERS = (
    Offer("DeepCache", "interval 3", "deep_cache", {"interval": 3}, UNETS, compiled=True),
    Offer("DeepCache", "interval 5", "deep_cache", {"interval": 5}, UNETS),
    Offer("tomesd", "ratio 0.5", "token_merging", {"ratio": 0.5}, UNETS[:1], compiled=True),
    _diffusers("PAB", "pab", spatial_attention_block_skip_range=2,
               temporal_attention_block_skip_range=3, cross_attention_block_skip_range=4),
    _diffusers("FasterCache", "faster", _without("ltx_video"),
               temporal_attention_block_skip_range=2),
    _diffusers("first-block 0.2", "first-block", _BLOCK_WISE, compiled=True, threshold=0.2),
    _diffusers("first-block 0.6", "first-block", _BLOCK_WISE, threshold=0.6),
    _diffusers("MagCache", "mag", _BLOCK_WISE),
    _diffusers("TaylorSeer", "taylorseer", compiled=True, **_TAYLOR),
    _diffusers("TaylorSeer lite", "taylorseer", use_lite_mode=True, **_TAYLOR),
    _dbcache("F1B0 0.24", residual_diff_threshold=0.24),
    _dbcache("mask fast", mask="fast", compiled=True),
    _dbcache("mask ultra, Taylor", mask="ultra", taylor=1),
)  # fmt: skip
