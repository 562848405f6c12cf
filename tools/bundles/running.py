"""What `turbo4d run` does once its call has been read: load, sample, write; no compiler."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from turbo4d.runtime.bundle.load import load as load_bundle
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.plan_text import picture
from turbo4d.runtime.report import Report
from turbo4d.tools.asset import Asset, prepare
from turbo4d.tools.asset_files import scene_places, write_json
from turbo4d.tools.bundles.bundle_model import BundleModel, bundle_model
from turbo4d.tools.device import choose_device
from turbo4d.tools.failures import CallError
from turbo4d.tools.fidelity import to_reference
from turbo4d.tools.guided_session import Sample, sample_in_session
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.plan_option import check_schedule
from turbo4d.tools.run_facts import facts_of, facts_of_session
from turbo4d.tools.sampled_scenes import sample_scenes, scenes_asked

Say = Callable[[str], None]


def run_bundle(args: argparse.Namespace, folder: Path, say: Say) -> Outcome:
    """Carry out the command.

    Args:
        args: the call, as checked.
        folder: an empty one to write into.
        say: told what is going on.

    Raises:
        CallError: a bundle of another kind of model or schedule, or a folder to compare with that
            shows something else.
        BundleError: a bundle that is damaged, or cannot run here.
    """
    device = choose_device(args.device)
    say("loading the bundle")
    begun = time.perf_counter()
    denoiser = load_bundle(
        args.bundle, allow_native=args.allow_native, device=str(device), strict=args.strict
    )
    loaded_s = time.perf_counter() - begun
    model = bundle_model(denoiser, args.checkpoint, device)
    plan: Plan = denoiser.plan
    check_schedule(f"bundle {args.bundle.name!r}", plan, plan.steps)
    asked = {"seed": args.seed, "steps": plan.steps, "plan": plan.name}
    assets = [prepare(model, scene, args.seed) for scene in scenes_asked(args, model)]
    theirs = _compared_with(args.compare_with, asked, model.name, assets)
    samples: list[Sample] = []

    def sample(asset: Asset) -> Tensor:
        samples.append(sample_in_session(denoiser, asset, plan.steps))
        return samples[-1].latent

    def title(scene: str) -> str:
        return f"{model.name}, {scene}, bundle {args.bundle.name}, {plan.steps} steps"

    seconds, shown = sample_scenes(model, sample, assets, folder, title, device, say)
    (folder / "plan.json").write_bytes(_plan_file(args.bundle, denoiser.manifest.plan))
    facts = _facts(args, model, asked, samples[-1].report, seconds, loaded_s, assets)
    if theirs:
        rows = {name: _closeness(shown[name], theirs[name]) for name in shown}
        facts |= {"compared_with": args.compare_with.name, "closeness": rows}
        write_json(folder / "report.json", facts)
    return Outcome(facts, _text(args, model, plan, facts))


def _facts(
    args: argparse.Namespace,
    model: BundleModel,
    asked: Mapping[str, Any],
    session: Report,
    seconds: Sequence[float],
    loaded_s: float,
    assets: Sequence[Asset],
) -> dict[str, Any]:
    target = model.denoiser.manifest.target
    dtype = model.denoiser.manifest.dtype
    return {
        **facts_of(model, {**asked, "lowering": target.name, "dtype": dtype}, model.device),
        "bundle": args.bundle.name,
        "target": target.name,
        "target_device": target.device,
        "scenes": [asset.scene.name for asset in assets],
        "seconds": list(seconds),
        "loaded_s": loaded_s,
        **facts_of_session(session),
    }


def _text(
    args: argparse.Namespace, model: BundleModel, plan: Plan, facts: Mapping[str, Any]
) -> str:
    lines = [
        f"{model.name}, {', '.join(facts['scenes'])}: {plan.steps} steps under plan {plan.name} on "
        f"{facts['target']} engines in {sum(facts['seconds']):.1f} s; the bundle was loaded in "
        f"{facts['loaded_s']:.2f} s",
        *(f"event {event['kind']}: {event['message']}" for event in facts["events"]),
        *(
            f"{name}: {row['psnr_db']:.1f} dB, {row['psnr_mask_db']:.1f} dB in the object, from "
            f"{facts['compared_with']}"
            for name, row in facts.get("closeness", {}).items()
        ),
        "",
        picture(plan, model.denoiser.manifest.signature.regions),
        "",
        f"written to {args.out}",
    ]
    return "\n".join(lines)


def _plan_file(bundle: Path, name: str) -> bytes:
    return (bundle / name).read_bytes()


def _closeness(ours: Tensor, theirs: Mapping[str, Tensor]) -> dict[str, float]:
    return to_reference(ours, theirs["turbo"], theirs["mask"])


def _compared_with(
    folder: Path | None, asked: Mapping[str, Any], model: str, assets: Sequence[Asset]
) -> dict[str, dict[str, Tensor]]:
    """What a folder of generate's holds, by scene; read before anything is sampled."""
    if folder is None:
        return {}
    try:
        report: Any = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        names = [row["name"] for row in report["scenes"]]
        made = {"model": report["model"], "seed": report["seed"], "steps": report["steps"]}
        places = dict(zip(names, scene_places(folder, names), strict=True))
        held = {
            name: load((place / "samples.safetensors").read_bytes())
            for name, place in places.items()
        }
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CallError(
            f"--compare-with {str(folder)!r} holds no report.json and samples.safetensors that can "
            f"be read ({error}); name a folder that generate --compare wrote."
        ) from error
    ours = {"model": model, "seed": asked["seed"], "steps": asked["steps"]}
    for fact, value in ours.items():
        if made[fact] != value:
            raise CallError(
                f"--compare-with {str(folder)!r} is of {fact} {made[fact]!r}; this run has "
                f"{value!r}. Name another folder, or generate again."
            )
    for asset in assets:
        if asset.scene.name not in held:
            raise CallError(
                f"--compare-with {str(folder)!r} has no {asset.scene.name}; it has "
                f"{', '.join(sorted(held))}."
            )
    return held
