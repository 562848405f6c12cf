"""The jobs of suite `gpu`: a sample or a step, the device's ceilings, where the time goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from turbo4d.tools.bench.gpu_compiled import Turbo, plain, turbo_of
from turbo4d.tools.bench.gpu_network import DTYPES, Work, call_of, network, sample
from turbo4d.tools.bench.gpu_rates import rates_of
from turbo4d.tools.bench.profiled import profile_plan, shares
from turbo4d.tools.bench.row import RowSpec

PRESET = "turbo4d:"


class SampleJob:
    """From noise to latent, or one step alone, by one system.

    Args:
        spec: of the row; settings hold the `Work`, `alone` for a step alone, `mode` of
            torch.compile and `cuda_graphs`.
        folder: where the uncached latent lies that others are compared with.
    """

    def __init__(self, spec: RowSpec, folder: Path) -> None:
        self.work = Work.of(spec.settings)
        self.device = torch.device(self.work.device)
        self._spec = spec
        self._reference = folder / f"uncached-{_slug(self.work)}.safetensors"
        self._alone = bool(spec.settings.get("alone"))
        self._plan = spec.plan
        self._turbo: Turbo | None = None
        self._latent: Tensor | None = None
        self._grew = 0
        if spec.system.startswith(PRESET):
            graphs = bool(spec.settings.get("cuda_graphs"))
            self._turbo = turbo_of(self.work, spec.lowering, graphs)
        else:
            self._network = plain(self.work, spec.system, spec.settings.get("mode"))

    def first(self) -> None:
        """Compiles; the network as it is leaves its latent to be compared with."""
        latent = self.run()
        if self._spec.system == "eager" and not self._alone:
            save_file({"latent": _on_host(latent)}, self._reference)

    def run(self) -> Tensor:
        """A latent, or what a step gives."""
        if self.device.type == "cuda":
            held = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self._latent = self._made()
            self._grew = torch.cuda.max_memory_allocated() - held
        else:
            self._latent = self._made()
        return self._latent

    def _made(self) -> Tensor:
        if self._turbo is not None:
            return self._turbo.step() if self._alone else self._turbo.sample(self._plan)
        if not self._alone:
            return sample(self._network, self.work)
        with torch.no_grad():
            return self._network(**call_of(self.work))

    def facts(self) -> Mapping[str, Any]:
        """Memory, what ran, and how far the latent is from the uncached one."""
        held = sum(p.nbytes for p in network(self.work).parameters())
        found: dict[str, Any] = {"weights": self.work.weights, "weights_bytes": held}
        if self.device.type == "cuda":
            found["peak_bytes"] = held + self._grew
            found["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
        if self._turbo is not None and self._turbo.report is not None and not self._alone:
            report = self._turbo.report
            names = ("calls_by_variant", "cache_peak_bytes", "prologue_bytes", "events")
            found |= {name: report[name] for name in names} | self._turbo.effort()
        return found | self._distance()

    def _distance(self) -> dict[str, Any]:
        if self._latent is None or self._alone or not self._reference.is_file():
            return {}
        latent = _on_host(self._latent)
        wanted = load_file(self._reference)["latent"]
        square = float((latent - wanted).square().mean())
        if not math.isfinite(square):
            return {"relative_error": None, "latent_psnr_db": None, "finite": False}
        peak = float(wanted.max() - wanted.min())
        return {
            "relative_error": math.sqrt(square) / float(wanted.square().mean().sqrt()),
            "latent_psnr_db": 10 * math.log10(peak**2 / square) if square else None,
            "finite": True,
        }

    def close(self) -> None:
        """Lets go of the latent."""
        self._latent = None


class CeilingsJob:
    """What the device can do at most in the row's dtype."""

    def __init__(self, spec: RowSpec, folder: Path) -> None:
        self.work = Work.of(spec.settings)
        self.device = torch.device(self.work.device)
        self._best = {"matmul_flops_per_s": 0.0, "copy_bytes_per_s": 0.0}

    def first(self) -> None:
        """Warms up."""
        self.run()

    def run(self) -> Tensor:
        """Measures once more."""
        rates = rates_of(DTYPES[self.work.dtype], self.device)
        for name in self._best:
            self._best[name] = max(self._best[name], getattr(rates, name))
        return torch.empty(0)

    def facts(self) -> Mapping[str, Any]:
        """The best of all."""
        return self._best

    def close(self) -> None:
        """Holds nothing."""


class ShareJob:
    """Where the time of a plan's variants goes, the plain step's first (the paper's figure 2)."""

    def __init__(self, spec: RowSpec, folder: Path) -> None:
        self.work = Work.of(spec.settings)
        self.device = torch.device(self.work.device)
        self._plan = spec.plan
        self._found: dict[str, Any] = {}

    def first(self) -> None:
        """Does it all; `run` is quick."""
        profiles = profile_plan(self.work, self._plan, runs=2)
        self._found = {
            "shares": {f"{p.name}, {p.steps} steps": shares(p) for p in profiles},
            "profile": [profile.to_json() for profile in profiles],
        }

    def run(self) -> Tensor:
        """Nothing more to measure."""
        return torch.empty(0)

    def facts(self) -> Mapping[str, Any]:
        """Seconds by kind, region and sort of work, for each variant."""
        return self._found

    def close(self) -> None:
        """Holds nothing."""


def _on_host(latent: Tensor) -> Tensor:
    return latent.detach().float().cpu().contiguous()


def _slug(work: Work) -> str:
    views, frames = work.config.views, work.config.frames
    parts = (work.model, work.device, work.dtype, work.steps, views, frames, work.seed)
    return "-".join(map(str, parts))
