"""What `turbo4d build` does once its call has been read: load, build, say what was built."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import torch
from turbo4d.compiler.bundle.build_report import BuildReport
from turbo4d.compiler.bundle.front_door import build as build_bundle
from turbo4d.compiler.bundle.writer import refuse_folder
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.errors import BundleError
from turbo4d.tools.asset import Asset, image_size, prepare
from turbo4d.tools.failures import CallError
from turbo4d.tools.guided_session import sample_once
from turbo4d.tools.load_model import DTYPES, LoadedModel, load_model
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.plan_option import plan_option
from turbo4d.tools.scene_input import held_out_scene

REFERENCE_SEED = 0
"""Of the noise of the run that is recorded; `verify` samples with the same."""


def build(args: argparse.Namespace, say: Callable[[str], None]) -> Outcome:
    """Carry out the command.

    Args:
        args: the call, as checked.
        say: told what is going on.

    Raises:
        CallError: the model cannot be sampled here, or --out is there and may not be replaced.
        Turbo4DError: what `turbo4d.build` refuses.
    """
    try:
        refuse_folder(args.out, force=args.force)
    except BundleError as error:
        raise CallError(f"--out: {error}") from error
    cuda = args.target.endswith(":cuda") or args.target == "tensorrt"
    device = torch.device("cuda" if cuda and torch.cuda.is_available() else "cpu")
    model = load_model(args.model, args.checkpoint, DTYPES[args.dtype], device)
    config = model.config
    say("rendering scene 0")
    scene = held_out_scene(0, config.views or 1, config.frames or 1, image_size(model))
    asset = prepare(model, scene, REFERENCE_SEED)
    report = build_bundle(
        model.network,
        kwargs=first_call(model, asset),
        plan=plan_option(args.plan, config, args.steps),
        levels=edm_sigmas(args.steps).tolist(),
        use=args.regions,
        target=args.target,
        settings=args.settings,
        form=args.form,
        out=args.out,
        name=args.model,
        references=not args.no_reference,
        run=lambda denoiser: sample_once(denoiser, asset, args.steps),
        max_memory_bytes=args.max_memory,
        force=args.force,
        progress=say,
    )
    data = {**report.to_json(), "dtype": args.dtype, "weights_sha256": model.weights_sha256}
    return Outcome(data, _text(report))


def first_call(model: LoadedModel, asset: Asset) -> Mapping[str, Any]:
    """The keyword arguments of the first call that sampling an asset makes."""
    calls: list[Mapping[str, Any]] = []

    def seen(x: torch.Tensor, timesteps: torch.Tensor, **others: Any) -> torch.Tensor:
        calls.append({"x": x, "timesteps": timesteps, **others})
        return x[:, : asset.noise.shape[1]]

    sample_once(seen, asset, 1)
    return calls[0]


def _text(report: BuildReport) -> str:
    need = report.need.total / 2**20
    built = sum(engine.seconds for engine in report.engines)
    took = sum(report.seconds.values()) + built
    return "\n".join(
        [
            str(report),
            f"running it takes {need:.1f} MiB; building took {took:.1f} s and "
            f"{report.peak_bytes / 2**20:.0f} MiB at most",
            f"written to {report.path}",
        ]
    )
