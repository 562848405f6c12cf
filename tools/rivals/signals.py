"""What the adaptive rivals look at, recorded on a scene's uncached run.

Their authors look at the run that is being sped up, where what was reused has already bent the
path, and pay for looking. Here a rival sees the exact path and the look costs it nothing: both are
in its favour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from turbo4d.tools.asset import Asset
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.sampling import sample_plain

_DIGITS = 6


@dataclass(frozen=True)
class Signals:
    """Of one scene; the change of a value is its mean distance relative to the older one (L1).

    Args:
        modulated: per step but the first, how much the input of the first block, shifted by the
            time embedding, changed since the step before.
        output: likewise what the core gives.
        first_block: [step][earlier step], how much the first block's residual changed.
        growth: per step but the first, the norm of what the core gives relative to the step
            before, over the channels, the mean over the pixels.
    """

    modulated: tuple[float, ...]
    output: tuple[float, ...]
    first_block: tuple[tuple[float, ...], ...]
    growth: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Signals:
        return Signals(
            tuple(found["modulated"]),
            tuple(found["output"]),
            tuple(tuple(row) for row in found["first_block"]),
            tuple(found["growth"]),
        )


def record(model: LoadedModel, asset: Asset, steps: int) -> tuple[Tensor, Signals]:
    """The uncached sample [F*V, 4, h, w] and what the rivals see of it.

    Args:
        model: a denoiser of the SV4D family, not compiled.
        asset: conditioning and noise.
        steps: of the schedule.
    """
    network: Any = model.network
    first = network.input_blocks[1]
    kept: dict[str, list[Tensor]] = {name: [] for name in ("modulated", "in", "out", "core")}
    hooks = [
        first[0].out_layers[0].register_forward_pre_hook(partial(_keep_input, kept["modulated"])),
        first[0].register_forward_pre_hook(partial(_keep_input, kept["in"])),
        first[-1].register_forward_hook(partial(_keep_output, kept["out"])),
        network.out.register_forward_pre_hook(partial(_keep_input, kept["core"])),
    ]
    try:
        latent = sample_plain(model, asset, steps)
    finally:
        for hook in hooks:
            hook.remove()
    return latent, signals_of(kept)


def signals_of(kept: Mapping[str, list[Tensor]]) -> Signals:
    """The signals of the values of all steps.

    Args:
        kept: one [N, C, H, W] a step, of "modulated", of the first block's "in" and "out", and of
            what the "core" gives.
    """
    residuals = [after - before for before, after in zip(kept["in"], kept["out"], strict=True)]
    core, modulated = kept["core"], kept["modulated"]
    return Signals(
        modulated=_changes(modulated),
        output=_changes(core),
        first_block=tuple(
            tuple(_change(now, before) for before in residuals[:step])
            for step, now in enumerate(residuals)
        ),
        growth=tuple(
            round(float((now.norm(dim=1) / before.norm(dim=1)).mean()), _DIGITS)
            for before, now in pairwise(core)
        ),
    )


def _changes(values: list[Tensor]) -> tuple[float, ...]:
    return tuple(_change(now, before) for before, now in pairwise(values))


def _change(now: Tensor, before: Tensor) -> float:
    return round(float((now - before).abs().mean() / before.abs().mean()), _DIGITS)


def _keep_input(kept: list[Tensor], _: nn.Module, args: tuple[Tensor, ...]) -> None:
    kept.append(args[0])


def _keep_output(kept: list[Tensor], _: nn.Module, __: object, output: Tensor) -> None:
    kept.append(output)
