"""front-door: `turbo4d.calibrate` gives the plan, and writes the report where one is wanted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from turbo4d.compiler.calibrate.calibrate import calibrate as calibration
from turbo4d.compiler.calibrate.state import write_whole
from turbo4d.compiler.machine import Machine
from turbo4d.runtime.plan import Plan


def calibrate(
    network: nn.Module,
    sampler: Callable[[Callable[..., Any], Any], Tensor],
    examples: Sequence[object],
    min_psnr_db: float,
    *,
    held_out: Sequence[object] = (),
    max_cache_bytes: int | None = None,
    max_variants: int = 8,
    worst_slack_db: float = 2.0,
    fidelity: Callable[[Tensor, Tensor, Any], float] | None = None,
    machine: Machine | None = None,
    options: Mapping[str, Any] | None = None,
    use: Collection[str] | None = None,
    state: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """The fastest plan found under which samples stay as close to the uncached ones as asked.

        plan = turbo4d.calibrate(unet, sampler, examples, min_psnr_db=35)

    Args:
        network: the denoiser, in eval mode.
        sampler: called as `sampler(denoiser, example)`, gives the sample, the same at each call.
            `denoiser` has the network's call signature; each call of it is the next step, unless
            `denoiser.step(index, stream=...)` stands before it.
        examples: what the sampler takes, one for each sample to measure and to choose by.
        min_psnr_db: what the mean over the examples must reach.
        held_out: examples that the plan is then run on; they have no part in finding it.
        max_cache_bytes: what all slots together may hold at any time, None for no bound.
        max_variants: how many graphs the plan may need.
        worst_slack_db: how far below `min_psnr_db` the worst example may lie.
        fidelity: gives dB of (reference, sample, example); None for PSNR, by a peak of 1 where the
            reference lies in [0, 1], else by its range.
        machine: for whose time the plan is made; None for this one, measured.
        options: of the backend, such as `geometry`.
        use: names of the moves to search among, None for all that save time.
        state: a file that keeps what was found, so that a stopped calibration goes on.
        report: a file that says how the plan was found and what it measured, as JSON.
        progress: told a line, with percent and time left, at each change.

    Returns:
        The plan, whose `origin` says what it measured.

    Raises:
        CalibrationError: a target that no plan reaches, a sampler that is not deterministic,
            examples of several geometries, a state of another calibration, no OR-tools.
    """
    found = calibration(
        network,
        sampler,
        examples,
        min_psnr_db,
        held_out=held_out,
        max_cache_bytes=max_cache_bytes,
        max_variants=max_variants,
        worst_slack_db=worst_slack_db,
        state=None if state is None else Path(state),
        fidelity=fidelity,
        machine=machine,
        progress=progress,
        options=options,
        use=use,
    )
    if report is not None:
        write_whole(Path(report), json.dumps(found.report, indent=1, allow_nan=False) + "\n")
    return found.plan
