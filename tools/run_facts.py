"""What a figure depends on, and what the runtime says of a session, as reports have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from turbo4d.tools.asset import Sampled
from turbo4d.tools.environment import commit, device_name


def facts_of(model: Sampled, asked: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """What a figure depends on: the model, the call, the machine, the versions."""
    return {
        "model": model.name,
        "weights": model.weights,
        "weights_sha256": model.weights_sha256,
        **asked,
        "device": device_name(device),
        "torch": torch.__version__,
        "commit": commit(),
        "threads": torch.get_num_threads(),
    }


def facts_of_session(session: Mapping[str, Any]) -> dict[str, Any]:
    """What the runtime says of turbo's last session."""
    return {
        "variants": session["variants"],
        "calls_by_variant": {"prologue": 0, **session["calls_by_variant"]},
        "weights_bytes": session["weights_bytes"],
        "cache_peak_bytes": session["cache_peak_bytes"],
        "prologue_bytes": session["prologue_bytes"],
        "events": list(session["events"]),
        "decisions": list(session["decisions"]),
    }
