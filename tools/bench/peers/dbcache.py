"""cache-dit: its dual-block cache, by what the first block says or by a mask of steps."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .cases import STEPS, Case
from .prepared import Prepared, compiled

INSTALL = "pip install cache-dit --no-deps"


def prepare(
    case: Case, *, compile: bool, mask: str = "", taylor: int = 0, **config: Any
) -> Prepared:
    """The transformer with cache-dit's cache on, as documented for a transformer without pipeline.

    Args:
        case: of a transformer that it has an adapter for.
        compile: whether torch.compile comes after, with the limits that it sets for that.
        mask: of the steps to compute, by name; the others reuse. "" for the first blocks' say.
        taylor: order of the extrapolation, 0 for none.
        config: of DBCacheConfig.
    """
    cache_dit: Any = import_module("cache_dit")
    masked: Mapping[str, Any] = {}
    if mask:
        masked = {
            "steps_computation_mask": cache_dit.steps_mask(mask_policy=mask, total_steps=STEPS),
            "steps_computation_policy": "static",
        }
    calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=taylor) if taylor else None
    cache_config = cache_dit.DBCacheConfig(
        num_inference_steps=STEPS,
        enable_separate_cfg=case.branches == "apart",
        cfg_compute_first=False,
        **masked,
        **config,
    )
    network: Any = case.network
    cache_dit.enable_cache(network, cache_config=cache_config, calibrator_config=calibrator)

    def reset() -> None:
        cache_dit.refresh_context(network, cache_config=cache_config, calibrator_config=calibrator)

    if compile:
        cache_dit.set_compile_configs()
    return Prepared(compiled(network) if compile else network, reset=reset)
