"""Fitted reuse: the whole step as a weighted sum of what it gave before and of its sample.

Samplers with fitted coefficients (DPM-Solver-v3, Zheng et al. 2023; bespoke solvers, Shaul et al.
2023) take the same span, of past outputs and the state; here a plan holds the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .action import Action
from .errors import SessionError

STEP = "step"  # the region that is the whole step


def channels_like(
    sample: Tensor, output: Tensor, constant: Sequence[tuple[int, int]] = ()
) -> Tensor | None:
    """The part of a sample that stands where the output stands, None where the two do not match.

    A sample may carry conditioning in further channels, after the noisy ones unless it is declared
    which they are.

    Args:
        sample: that the denoiser is fed.
        output: that it gives.
        constant: channels [start, stop) of the sample that are declared not to change.
    """
    if sample.dim() != output.dim():
        return None
    sides = [*zip(sample.shape, output.shape, strict=True)]
    apart = [axis for axis, (mine, its) in enumerate(sides) if mine != its]
    if not apart:
        return sample
    axis, count = apart[0], output.shape[apart[0]]
    if len(apart) > 1 or axis == 0 or sample.shape[axis] < count:
        return None
    start = 0
    for first, last in sorted(constant):
        if first < start + count:
            start = last
    return sample.narrow(axis, start, count) if start + count <= sample.shape[axis] else None


def add_sample(
    names: Sequence[str],
    values: Sequence[Tensor],
    fits: Mapping[str, Action],
    sample: Tensor,
    constant: Sequence[tuple[int, int]],
) -> list[Tensor]:
    """The values that an engine reads, with the sample's share in those that want it.

    Args:
        names: of the regions, one per value.
        values: mixed from the slots.
        fits: per region its fitted reuse.
        sample: that the denoiser is fed.
        constant: see `channels_like`.

    Raises:
        SessionError: where the sample does not match the value.
    """
    found = [*values]
    for index, name in enumerate(names):
        fit = fits.get(name)
        if fit is None or not fit.sample:
            continue
        part = channels_like(sample, found[index], constant)
        if part is None:
            raise SessionError(
                f"region {name!r}: the sample is {tuple(sample.shape)} and the step gives "
                f"{tuple(found[index].shape)}; the plan's weight of the sample wants them alike."
            )
        wide = torch.promote_types(found[index].dtype, torch.float32)
        mixed = found[index].to(wide) + part.to(wide) * fit.sample
        found[index] = mixed.to(found[index].dtype)
    return found
