"""What `turbo4d verify` does once its call has been read: check, compare, say what was found."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.bundle.comparison import difference
from turbo4d.compiler.bundle.findings import Checked, Verification
from turbo4d.compiler.bundle.tolerances import run_tolerance
from turbo4d.compiler.bundle.verification import verify as verify_bundle
from turbo4d.models.metrics import psnr
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.plan import Plan
from turbo4d.tools.asset import decode, image_size, prepare
from turbo4d.tools.bundles.building import REFERENCE_SEED
from turbo4d.tools.bundles.bundle_model import bundle_model
from turbo4d.tools.failures import JobError
from turbo4d.tools.fidelity import capped
from turbo4d.tools.guided_session import GUIDER, sample_in_session
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.scene_input import held_out_scene

SAMPLE = "sample"
MIN_PSNR_DB = 50.0
MIN_PSNR_HALVES_DB = 40.0
"""What the images of a sample must keep, of those of plain torch under the same plan: in the half
types an engine may not cost more than the best preset does, which keeps 40 dB."""


def verify(args: argparse.Namespace, say: Callable[[str], None]) -> Outcome:
    """Carry out the command.

    Args:
        args: the call, as checked.
        say: told what is going on.

    Raises:
        BundleError: a file is not what the manifest says.
        JobError: an engine failed, or did not run and had to; the text holds every row.
    """
    found = verify_bundle(
        args.bundle,
        allow_native=args.allow_native,
        device=args.device,
        strict=args.strict,
        say=say,
    )
    rows, decibels = list(found.rows), None
    if found.denoiser is not None and found.reference is not None and found.manifest.model:
        if found.reference.result is not None:
            say("sampling scene 0")
            row, decibels = _sample(args, found)
            rows.append(row)
    bad = [row for row in rows if row.status in _bad(args.require_run)]
    data = {
        "bundle": args.bundle.name,
        "target": found.manifest.target.name,
        "target_device": found.manifest.target.device,
        "dtype": found.manifest.dtype,
        "files": len(found.manifest.files),
        "measured_by": found.measured_by,
        "sample_psnr_db": decibels,
        "passed": not bad,
        "rows": [_row(row) for row in rows],
    }
    text = _text(args, found, rows, decibels)
    return Outcome(data, text, _sentence(args, bad) if bad else None)


def _bad(require_run: bool) -> tuple[str, ...]:
    return ("failed", "not run") if require_run else ("failed",)


def _sample(args: argparse.Namespace, found: Verification) -> tuple[Checked, float]:
    """One sample from noise to latent, against the recorded one, and PSNR of its images."""
    denoiser, reference = found.denoiser, found.reference
    if denoiser is None or reference is None or reference.result is None:
        raise JobError("verify: nothing was recorded to compare a sample with.")
    model = bundle_model(denoiser, args.checkpoint, torch.device(denoiser.device))
    views, frames = model.config.views or 1, model.config.frames or 1
    asset = prepare(model, held_out_scene(0, views, frames, image_size(model)), REFERENCE_SEED)
    steps = denoiser.plan.steps
    latent = sample_in_session(denoiser, asset, steps).latent.cpu()
    wanted: Tensor = reference.result
    error = difference(latent, wanted).relative
    tolerance = sample_tolerance(model.dtype, denoiser.plan, edm_sigmas(steps).tolist())
    images = [decode(model, each.to(model.device)) for each in (latent, wanted)]
    decibels = capped(psnr(*images))
    halves = model.dtype in (torch.float16, torch.bfloat16)
    wanted_db = MIN_PSNR_HALVES_DB if halves else MIN_PSNR_DB
    seen = decibels >= wanted_db
    passed = error <= tolerance and seen
    row = Checked(
        SAMPLE,
        found.rows[-1].by,
        "passed" if passed else "failed",
        "",
        {"latent": error},
        tolerance,
        "" if seen else f"its images keep {decibels:.1f} dB, of {wanted_db:.0f} that they must",
    )
    return row, decibels


def sample_tolerance(dtype: torch.dtype, plan: Plan, levels: Sequence[float]) -> float:
    """The relative error that a sample may have.

    Euler's method puts it together of what the denoiser gave at each level, weighed by
    1 - next level / level; guidance by s weighs the two branches by s and s - 1. Errors of all
    calls add at random, as roundings do in a stream (`compiler/bundle/tolerances.py`), and a
    denoiser takes no more over of its input's error than the input is off.

    Args:
        dtype: that the engines compute in.
        plan: whose steps are taken.
        levels: falling, the last is 0.
    """
    weights = (1 - after / before for before, after in pairwise(levels))
    guided = math.hypot(GUIDER.max_scale, GUIDER.max_scale - 1)
    return math.hypot(*weights) * guided * run_tolerance(dtype, plan)


def _row(row: Checked) -> dict[str, Any]:
    found = {name: error if math.isfinite(error) else None for name, error in row.errors.items()}
    return {**asdict(row), "errors": found}


def _sentence(args: argparse.Namespace, bad: list[Checked]) -> str:
    first = bad[0]
    what = f"{len(bad)} of the bundle's checks failed" if bad[1:] else "a check failed"
    if first.status == "not run":
        return (
            f"{args.bundle.name}: {what}; {first.name!r} was not run: {first.reason.rstrip('.')}."
        )
    name, error = first.worst or ("nothing", math.inf)
    where = f"; {first.layer}" if first.layer else ""
    return (
        f"{args.bundle.name}: {what}; {name} of {first.name!r} is {error:.2g} from plain torch's, "
        f"where {first.tolerance:.2g} is allowed{where}."
    )


def _text(
    args: argparse.Namespace, found: Verification, rows: list[Checked], decibels: float | None
) -> str:
    target, count = found.manifest.target, len(found.manifest.variants)
    lines = [
        f"{args.bundle.name}: {found.manifest.model or 'a model'}, plan of {count} "
        f"variant{'s' * (count > 1)}, {target.name} on {target.device}, "
        f"{found.manifest.dtype}; {len(found.manifest.files)} files are as the manifest says"
    ]
    width = max(len(row.name) for row in rows)
    lines += [f"  {row.name:<{width}}  {row.by:<8}  {_told(row)}" for row in rows]
    if decibels is not None:
        lines.append(f"images of the sample: {decibels:.1f} dB from plain torch's")
    if found.measured_by:
        lines.append(f"relative errors by the 2-norm, of {found.measured_by}")
    return "\n".join(lines)


def _told(row: Checked) -> str:
    if row.status == "not run":
        return f"not run: {row.reason}"
    name, error = row.worst or ("nothing", 0.0)
    end = f"; {row.layer}" if row.layer else ""
    return f"{row.status}: {error:.1e} at {name}, {row.tolerance:.1e} allowed{end}"
