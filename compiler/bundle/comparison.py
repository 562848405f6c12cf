"""comparison: how far what an engine gave is from what was wanted of it.

The measure is the relative error, |a - b| / |b| by the 2-norm over a whole tensor: it weighs an
element by what it contributes, and is what rounding errors of sums obey (`tolerances`). Polygraphy
gives it as the signal-to-noise ratio in dB, -20 log10 of it; where it is not installed, so do we.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """Of one tensor from what was wanted.

    Args:
        relative: |a - b| / |b| by the 2-norm, or over another size that was given; infinite where
            either holds NaN or infinity, or where that size is zero and something else came.
        largest: of any element, absolute; likewise infinite.
    """

    relative: float
    largest: float


def norm_of(value: Tensor) -> float:
    """The 2-norm over a whole tensor, computed in float64 on the CPU."""
    return math.sqrt(float(value.detach().cpu().double().square().sum()))


def difference(got: Tensor, wanted: Tensor, size: float = 0.0) -> Difference:
    """Of one tensor, computed in float64 on the CPU; another shape or dtype is infinitely far.

    Args:
        got: from an engine.
        wanted: that should have come.
        size: that the error is measured against where it exceeds the wanted tensor's 2-norm.
    """
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return Difference(math.inf, math.inf)
    if not wanted.numel():
        return Difference(0.0, 0.0)
    ours, theirs = got.detach().cpu().double(), wanted.detach().cpu().double()
    apart = ours - theirs
    if not bool(torch.isfinite(apart).all()):
        return Difference(math.inf, math.inf)
    size, error = max(norm_of(theirs), size), norm_of(apart)
    relative = error / size if size else math.inf if error else 0.0
    return Difference(relative, float(apart.abs().max()))


def differences(
    got: Mapping[str, Tensor], wanted: Mapping[str, Tensor], sizes: Mapping[str, float]
) -> tuple[dict[str, Difference], str]:
    """Of several tensors by name, and what computed them: "polygraphy <version>" or "turbo4d".

    Args:
        got: has every name in `wanted`.
        wanted: that an engine should have given.
        sizes: by name, what an error is measured against where it is larger than the tensor.
    """
    plain = {name: difference(got[name], wanted[name], sizes.get(name, 0.0)) for name in wanted}
    if importlib.util.find_spec("polygraphy") is None:
        return plain, "turbo4d"
    norms = {name: norm_of(wanted[name]) for name, each in plain.items()
             if math.isfinite(each.relative)}  # fmt: skip
    whole = [name for name, norm in norms.items() if norm]
    found = _by_polygraphy(
        {name: got[name] for name in whole}, {name: wanted[name] for name in whole}
    )
    merged = dict(plain)
    for name, relative in found.items():
        norm = norms[name]
        told = relative * norm / max(norm, sizes.get(name, 0.0))
        merged[name] = Difference(told, plain[name].largest)
    return merged, f"polygraphy {_version()}"


def _by_polygraphy(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, float]:
    """The relative errors by name, of finite tensors of equal forms."""
    log: Any = import_module("polygraphy.logger").G_LOGGER
    names = [name for name in wanted if wanted[name].numel()]
    if not names:
        return {}
    with log.verbosity(log.CRITICAL):  # it would print two lines for each tensor
        library: Any = import_module("polygraphy.comparator")
        made, compare = library.IterationResult, library.SnrCompareFunc
        sides = [made({name: _array(side[name]) for name in names}) for side in (wanted, got)]
        results = compare(snr_threshold=-math.inf, fail_fast=False)(*sides)
        return {name: _relative(float(result.snr)) for name, result in results.items()}


def _array(value: Tensor) -> Any:
    return value.detach().cpu().double().numpy()


def _relative(decibels: float) -> float:
    return 10.0 ** (-decibels / 20.0)


def _version() -> str:
    from importlib.metadata import version

    return version("polygraphy")
