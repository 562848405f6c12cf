"""The fused attention at each site of a network: torch's calls beside it, and how to cut its work.

What is found to be fastest belongs into `TUNED` of `runtime/engines/triton_tuning.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from turbo4d.runtime.engines.triton_tuning import Tuning, tuning_of
from turbo4d.tools.bench.gpu_network import DTYPES, Work
from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.timing import timed

_ROUNDS = 5
_BRANCHES = 2
Launch = Callable[..., Tensor]


@dataclass(frozen=True)
class Site:
    """The attentions of one kind at one level.

    Args:
        kind: camera or motion.
        outer: groups that lie far apart.
        inner: groups side by side.
        tokens: of a group.
        channels: C.
        heads: N.
    """

    kind: str
    outer: int
    inner: int
    tokens: int
    channels: int
    heads: int


def sites_of(work: Work) -> list[Site]:
    """One of each kind and level, the guidance branches in it.

    Args:
        work: whose network has them.
    """
    config = work.config
    views, frames = config.views or 1, config.frames or 1
    found: list[Site] = []
    for level, factor in enumerate(config.channel_mult):
        channels = config.model_channels * factor
        heads, pixels = channels // config.num_head_channels, (config.latent_size >> level) ** 2
        if 2**level in config.attention_resolutions:
            found.append(Site("camera", _BRANCHES * frames, pixels, views, channels, heads))
            found.append(Site("motion", _BRANCHES, views * pixels, frames, channels, heads))
    return found


def candidates(first: Tuning) -> list[Tuning]:
    """Ways to cut the work, the rule's own first: seconds to compile each, so few."""
    wide = replace(first, rows=64, step=64, warps=8, columns=128)
    others = [
        wide, replace(wide, stages=3), replace(wide, whole=False), replace(wide, rows=128),
        replace(wide, rows=128, whole=False, stages=3), replace(first, stages=3),
        replace(first, columns=128), replace(first, warps=12 - first.warps),
    ]  # fmt: skip
    return list(dict.fromkeys([first, *others]))


class KernelsJob:
    """Times torch's calls and each way to cut the kernels' work, site by site.

    Args:
        spec: of the row.
        launch: the kernels; those of Triton where None.
    """

    def __init__(self, spec: RowSpec, folder: Path, launch: Launch | None = None) -> None:
        self.work = Work.of(spec.settings)
        self.device = torch.device(self.work.device)
        self._refused: tuple[type[Exception], ...] = (RuntimeError,)
        if launch is None:
            from turbo4d.runtime.engines.triton_kernels import TooLarge
            from turbo4d.runtime.engines.triton_token_attention import launch

            self._refused = (RuntimeError, TooLarge)
        self._launch = launch
        self._found: list[dict[str, Any]] = []

    def first(self) -> None:
        """Does it all; `run` is quick."""
        self._found = [self._site(site) for site in sites_of(self.work)]

    def run(self) -> Tensor:
        """Nothing more to measure."""
        return torch.empty(0)

    def facts(self) -> Mapping[str, Any]:
        """Milliseconds of each site: torch's, the rule's, and the fastest with how it is cut."""
        return {"kernels": self._found}

    def close(self) -> None:
        """Holds nothing."""

    def _site(self, site: Site) -> dict[str, Any]:
        dtype = DTYPES[self.work.dtype]
        x, norm, weights = _drawn(site, dtype, self.device)
        scale = (site.channels // site.heads) ** -0.5
        wanted = _plain(x, norm, weights, site.heads, scale)
        taken_ms: dict[Tuning, float] = {}
        refused: list[str] = []
        for cut in candidates(tuning_of(site.channels, site.heads, site.tokens, dtype)):

            def call(cut: Tuning = cut) -> Tensor:
                return self._launch(x, norm, weights, site.heads, scale, x, cut)

            try:
                off = float((call() - wanted).norm() / wanted.norm())
                taken_ms[cut] = _milliseconds(call, self.device)
            except self._refused as error:
                refused.append(f"{cut}: {str(error).splitlines()[0]}")
                continue
            if not off < 0.02:
                refused.append(f"{cut}: off by {off:.1e}")
                del taken_ms[cut]
        torch_ms = _milliseconds(
            lambda: _plain(x, norm, weights, site.heads, scale), self.device
        )  # fmt: skip
        return {**asdict(site), "torch_ms": torch_ms, **_best(taken_ms), "refused": refused}


def _best(taken_ms: Mapping[Tuning, float]) -> dict[str, Any]:
    if not taken_ms:
        return {"rule_ms": None, "best_ms": None, "best": None}
    best = min(taken_ms, key=lambda cut: taken_ms[cut])
    rule = next(iter(taken_ms.values()))
    return {"rule_ms": rule, "best_ms": taken_ms[best], "best": asdict(replace(best, timed=True))}


def _drawn(
    site: Site, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, tuple[Tensor, Tensor, float], tuple[Tensor, ...]]:
    """A value with its tokens apart, as views and frames lie, a norm, and weights."""

    def one(*sizes: int) -> Tensor:
        return torch.randn(sizes, device=device).to(dtype)

    channels = site.channels
    x = one(site.outer, site.tokens, site.inner, channels).transpose(1, 2)
    square = [one(channels, channels) / channels**0.5 for _ in range(4)]
    return x, (one(channels), one(channels), 1e-5), (*square, one(channels))


def _plain(
    x: Tensor,
    norm: tuple[Tensor, Tensor, float],
    weights: Sequence[Tensor],
    heads: int,
    scale: float,
) -> Tensor:
    """What a network calls: groups, norm, projections, attention, sum, and back."""
    grouped = x.reshape(-1, *x.shape[2:])
    normed = F.layer_norm(grouped, grouped.shape[-1:], *norm)
    q, k, v = (
        F.linear(normed, each).unflatten(-1, (heads, -1)).transpose(1, 2) for each in weights[:3]
    )
    found = F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)
    summed = grouped + F.linear(found, weights[3], weights[4])
    return torch.empty_like(x).copy_(summed.view(x.shape))


def _milliseconds(call: Callable[[], Tensor], device: torch.device) -> float:
    with torch.no_grad():
        timed(call, device)
        return 1e3 * min(timed(call, device)[1] for _ in range(_ROUNDS))
