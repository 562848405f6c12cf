"""DeepCache: the deep part of a UNet reused at all but every n-th step.

Its helper asks of a pipeline nothing but `unet` and `scheduler`, and that the loop gives latent and
timestep by place, as Stable Diffusion's and SVD's do.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .cases import Case
from .prepared import Prepared, compiled

INSTALL = "pip install DeepCache --no-deps"


@dataclass
class _Pipe:
    unet: Any
    scheduler: Any


def prepare(case: Case, *, compile: bool, interval: int, branch: int = 0) -> Prepared:
    """The UNet with DeepCache on.

    Args:
        case: of a UNet.
        compile: whether torch.compile comes after.
        interval: steps between full ones.
        branch: at which skip connection the reused part begins, counted from the outermost.
    """
    package: Any = import_module("DeepCache")
    helper: Any = package.DeepCacheSDHelper(pipe=_Pipe(case.network, case.scheduler))
    helper.set_params(cache_interval=interval, cache_branch_id=branch)
    helper.enable()

    def reset() -> None:
        # What a new pipeline call finds: no output of the last one.
        helper.cached_output.clear()
        helper.start_timestep = None

    network: Any = case.network
    return Prepared(compiled(network) if compile else network, reset=reset)
