"""What a caller who wants gradients is told: there are none."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import Turbo4DError
from .events import Events


def refuse_gradients(names: Sequence[str], inputs: Sequence[Tensor]) -> None:
    """Refuses inputs that ask for a gradient; costs nothing where gradients are off.

    Args:
        names: of the inputs.
        inputs: of one call, weights and constants left out.

    Raises:
        Turbo4DError: where one requires grad and grad mode is on.
    """
    if not torch.is_grad_enabled():
        return
    for name, tensor in zip(names, inputs, strict=True):
        if tensor.requires_grad:
            raise Turbo4DError(
                f"input {name!r} requires grad; turbo4d computes no gradients. Detach it or call "
                "under torch.no_grad()."
            )


def note_weights(weights: Sequence[Tensor], events: Events) -> None:
    """Notes once that weights which require grad get none: a loop need not say no_grad."""
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
        events.add_once(
            "no-gradient",
            "weights require grad and grad mode is on; turbo4d computes no gradients. Call under "
            "torch.no_grad() to say so.",
        )
