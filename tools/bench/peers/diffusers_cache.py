"""The caches that `diffusers` itself brings, each a hook on a transformer's blocks."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from .cases import STEPS, Case
from .prepared import Prepared, compiled
from .sampling import sample

INSTALL = "pip install diffusers"
# Attention and feed-forward of a block: the names that TaylorSeer's own patterns miss in most
# models, which it then leaves as they are.
_PARTS = [r"(temporal_)?(single_)?(transformer_)?blocks\.\d+\.(attn\d?|ff|ffn|ff_context)"]
_CONTEXTS = {"main": "cond_uncond", "cond": "cond", "uncond": "uncond"}


def prepare(case: Case, *, compile: bool, cache: str, **config: Any) -> Prepared:
    """The transformer with one of the caches on.

    Args:
        case: of a transformer.
        compile: whether torch.compile comes after.
        cache: "pab", "faster", "first-block", "taylorseer" or "mag".
        config: of that cache's class.
    """
    now = [0.0]  # what hooks ask a pipeline for
    network: Any = case.network

    def before(step: int, timestep: torch.Tensor, stream: str) -> Any:
        now[0] = float(timestep)
        return network.cache_context(_CONTEXTS[stream])

    network.enable_cache(_CONFIGS[cache](case, before, lambda: now[0], config))
    return Prepared(
        compiled(network) if compile else network, before, network._reset_stateful_cache
    )


Now = Callable[[], float]


def _hooks() -> Any:
    return import_module("diffusers.hooks")


def _pab(case: Case, before: Any, now: Now, config: Any) -> Any:
    return _hooks().PyramidAttentionBroadcastConfig(current_timestep_callback=now, **config)


def _faster(case: Case, before: Any, now: Now, config: Any) -> Any:
    return _hooks().FasterCacheConfig(
        tensor_format="BFCHW" if case.model == "cogvideox" else "BCFHW",
        is_guidance_distilled=case.branches != "together",
        current_timestep_callback=now,
        **config,
    )


def _first_block(case: Case, before: Any, now: Now, config: Any) -> Any:
    return _hooks().FirstBlockCacheConfig(**config)


def _taylorseer(case: Case, before: Any, now: Now, config: Any) -> Any:
    if not config.get("use_lite_mode"):
        config = {"cache_identifiers": _PARTS, **config}
    return _hooks().TaylorSeerCacheConfig(taylor_factors_dtype=torch.float32, **config)


def _mag(case: Case, before: Any, now: Now, config: Any) -> Any:
    """Calibrated as documented: one run on another example, whose ratios it prints."""
    network: Any = case.network
    network.enable_cache(_hooks().MagCacheConfig(calibrate=True, num_inference_steps=STEPS))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        sample(case, network, case.example(1), before)
    network.disable_cache()
    ratios = next(line for line in printed.getvalue().splitlines() if line.startswith("[1"))
    return _hooks().MagCacheConfig(
        mag_ratios=json.loads(ratios), num_inference_steps=STEPS, **config
    )


_CONFIGS: dict[str, Callable[[Case, Any, Now, Any], Any]] = {
    "pab": _pab,
    "faster": _faster,
    "first-block": _first_block,
    "taylorseer": _taylorseer,
    "mag": _mag,
}
