"""A tiny network of `diffusers` with all that is needed to call, sample and compile it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .sizes import TINY
from .transformers import cogvideox, hunyuan_video, latte, ltx_video, wan
from .unets import animatediff, i2vgen_xl, modelscope, stable_diffusion, svd

FACTORIES: Mapping[str, Callable[[], nn.Module]] = {
    factory.__name__: factory
    for factory in (svd, animatediff, modelscope, stable_diffusion, i2vgen_xl,
                    cogvideox, latte, wan, hunyuan_video, ltx_video)
}  # fmt: skip
_VIDEO = {"batch": TINY.batch, "frames": TINY.frames}
_GEOMETRIES: Mapping[str, Mapping[str, int]] = {
    "stable_diffusion": {"batch": TINY.batch, "frames": 1},
    "ltx_video": {**_VIDEO, "height": TINY.side // 2, "width": TINY.side // 2},
}


@dataclass(frozen=True)
class Foreign:
    """A network of a package that is not ours.

    Args:
        name: of its class.
        factory: the function here that builds it.
        module: in eval mode.
        inputs: keyword arguments of one call.
        sample: which of them is the sample.
        level: which of them is the timestep.
        geometry: what option `geometry` is given.
    """

    name: str
    factory: str
    module: nn.Module
    inputs: Mapping[str, Any]
    sample: str
    level: str
    geometry: Mapping[str, int]

    def call(self, sample: Tensor, timestep: float | Tensor) -> dict[str, Any]:
        """The keyword arguments with another sample and timestep, both as the first ones were."""
        level = torch.full_like(self.inputs[self.level], float(timestep))
        return {**self.inputs, self.sample: sample, self.level: level}


def build(factory: str) -> Foreign:
    """A tiny network with its call and its geometry, by the name of its factory here."""
    module = FACTORIES[factory]()
    own: Any = module.turbo4d_inputs
    inputs: dict[str, Any] = own()[1]
    sample = "sample" if "sample" in inputs else "hidden_states"
    geometry = _GEOMETRIES.get(factory, _VIDEO)
    return Foreign(type(module).__name__, factory, module, inputs, sample, "timestep", geometry)
