"""What tells one set of weights of a network from another."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .compat import versions_of


def weights_digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """sha256, in hex, of the weights that a network computes with.

    Args:
        weights: by name, each once, in any order; on any device.
    """
    state = hashlib.sha256()
    for name, value in sorted(weights, key=lambda each: each[0]):
        state.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        flat = value.detach().cpu().contiguous().view(-1)
        state.update(flat.view(torch.uint8).numpy().data)
    return state.hexdigest()


class WeightsDigest:
    """The digest of one denoiser's weights, computed when it is asked for and kept while they stay.

    Args:
        names: of the weights.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._known: tuple[object, str] = (None, "")

    def of(self, weights: Sequence[Tensor]) -> Callable[[], str]:
        """What tells the digest of these; it holds none of them, and of weights let go it is ""."""
        held = [weakref.ref(weight) for weight in weights]

        def digest() -> str:
            found = [weight for ref in held if (weight := ref()) is not None]
            if len(found) < len(held):
                return ""
            marks = [weight.data_ptr() for weight in found], versions_of(found)
            if self._known[0] != marks:
                self._known = marks, weights_digest(zip(self._names, found, strict=True))
            return self._known[1]

        return digest


def fitted_to_others(name: str, fitted: str, digest: Callable[[], str]) -> str | None:
    """What is to be said of a plan that was fitted to another network's weights; None of any other.

    Args:
        name: of the plan.
        fitted: digest of the weights it was fitted to, "" where it was fitted to none.
        digest: tells that of the network's; asked only where the plan was fitted.
    """
    if not fitted or fitted == (own := digest()):
        return None
    return (
        f"plan {name!r} was fitted to weights {fitted[:12]}; this network has {own[:12]}. "
        "Calibrate a plan for it."
    )
