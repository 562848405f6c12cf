"""The networks that suite `peers` samples, of either size: tiny ones, and those of middle size.

`turbo4d explain --model turbo4d.tools.bench.peers.networks:svd` shows one of middle size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn
from turbo4d.tools import foreign_models
from turbo4d.tools.foreign_models import FACTORIES, MID

stable_diffusion = partial(foreign_models.stable_diffusion, MID)
svd = partial(foreign_models.svd, MID)
cogvideox = partial(foreign_models.cogvideox, MID)
latte = partial(foreign_models.latte, MID)
wan = partial(foreign_models.wan, MID)
hunyuan_video = partial(foreign_models.hunyuan_video, MID)
ltx_video = partial(foreign_models.ltx_video, MID)

_MIDDLE: Mapping[str, Callable[[], nn.Module]] = {
    made.func.__name__: made
    for made in (stable_diffusion, svd, cogvideox, latte, wan, hunyuan_video, ltx_video)
}


def network(name: str, size: str) -> nn.Module:
    """A denoiser with its call as `turbo4d_inputs`."""
    return {"mid": _MIDDLE, "tiny": FACTORIES}[size][name]()
