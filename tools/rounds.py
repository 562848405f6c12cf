"""Timed rounds over several scenes: who ran, what came out, and how long it took."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from turbo4d.tools.asset import Asset
from turbo4d.tools.timing import Timed, alternate

Jobs = Mapping[str, Callable[[], Tensor]]


class Rounds:
    """What every job took on every scene.

    Args:
        assets: one per scene.
        runs: timed runs of each job.
        device: of the network.
        say: told what is going on.

    Attributes:
        found: per scene, job -> its first result and its times.
    """

    def __init__(
        self,
        assets: Sequence[Asset],
        runs: int,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self.assets = assets
        self.device = device
        self.say = say
        self.found: list[dict[str, Timed]] = [{} for _ in assets]
        self._runs = runs

    def run(self, jobs: Callable[[Asset], Jobs]) -> None:
        """Run jobs in turn on each scene; what ran before under the same name is replaced."""
        for asset, found in zip(self.assets, self.found, strict=True):
            found |= alternate(
                jobs(asset),
                self._runs,
                self.device,
                lambda text, name=asset.scene.name: self.say(f"{name}, {text}"),
            )

    def seconds(self, name: str) -> float:
        """The median over the scenes of a job's median."""
        return statistics.median(found[name].timing.median for found in self.found)
