"""What `turbo4d explain` does once its call has been read: capture, plan, describe, write."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from turbo4d.compiler.backend import signature_of
from turbo4d.compiler.explain import Explanation
from turbo4d.models.checkpoint import load_checkpoint
from turbo4d.models.config import SV4DConfig
from turbo4d.models.example_inputs import example_inputs
from turbo4d.models.schedule import edm_sigmas
from turbo4d.models.unet import SV4DUNet
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.plan_source import PlanSource, Schedule, read_plan
from turbo4d.runtime.plan_text import diff
from turbo4d.tools.explanation_page import page
from turbo4d.tools.failures import CallError
from turbo4d.tools.load_model import DTYPES, make
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.plan_picture import write_plan_png

import turbo4d


class Call(NamedTuple):
    """A network and one call of it."""

    network: nn.Module
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def explain(args: argparse.Namespace, path: Path | None) -> Outcome:
    """Carry out the command.

    Args:
        args: the call, as checked.
        path: a file to write, told by the suffix of `args.out`; None writes none.
    """
    for name in (args.plan, args.against):  # a plan that is none is refused before the capture
        _ = name is None or read_plan(name)
    call = _call(args.model, args.checkpoint, DTYPES[args.dtype])
    info = turbo4d.explain(
        call.network, call.args, call.kwargs, "none", args.geometry, machine=args.machine
    )
    found = _planned(info, args.plan, args)
    data = {**found.to_json(), "model": args.model}
    text = f"{args.model}: {found}"
    if args.against is not None:
        changes = diff(_planned(info, args.against, args).plan, found.plan)
        data["diff"] = list(changes)
        lines = [f"  {change}" for change in changes or ["nothing changes"]]
        text = "\n".join([f"from plan {args.against} to plan {args.plan}:", *lines])
    if path is not None:
        _write(path, args.out.suffix, found, data)
    written = "" if path is None else f"\n\nwritten to {args.out}"
    return Outcome(data, f"{text}{written}")


def _call(name: str, checkpoint: Path | None, dtype: torch.dtype) -> Call:
    network = make(name) if ":" in name else _named(name, dtype)
    if checkpoint is not None:
        network = _filled(name, network, checkpoint)
    own = getattr(network, "turbo4d_inputs", None)
    if callable(own):
        return Call(network.eval(), *_own_inputs(name, own))
    if not isinstance(network, SV4DUNet):
        raise CallError(
            f"--model {name!r} made a {type(network).__name__}, whose inputs are not known; give "
            "it a method turbo4d_inputs() that returns the positional and the keyword arguments of "
            "one call."
        )
    first = next(network.parameters())
    inputs = example_inputs(network.config, device=first.device, dtype=first.dtype)
    return Call(network.eval(), (), inputs)


def _named(name: str, dtype: torch.dtype) -> SV4DUNet:
    return SV4DUNet(SV4DConfig.named(name), device="meta", dtype=dtype)


def _filled(name: str, network: nn.Module, checkpoint: Path) -> SV4DUNet:
    if not isinstance(network, SV4DUNet):
        raise CallError(
            f"--checkpoint is read into an SV4DUNet, and --model {name!r} made a "
            f"{type(network).__name__}; leave it out, explain needs no weights."
        )
    return load_checkpoint(checkpoint, network)


def _own_inputs(name: str, own: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    given = own()
    match given:
        case (list() | tuple() as args, dict() as kwargs):
            return args, kwargs
        case _:
            raise CallError(
                f"--model {name!r}: turbo4d_inputs() returned a {type(given).__name__}; wanted a "
                "pair, the positional arguments and a dict of keyword arguments."
            )


def _planned(info: Explanation, name: str, args: argparse.Namespace) -> Explanation:
    given = read_plan(name)
    left_out: tuple[str, ...] = ()
    if isinstance(given, Plan):
        given, left_out = given.settled([region.info for region in info.regions])
    schedule = Schedule.of(edm_sigmas(args.steps).tolist(), None)
    source = PlanSource(given, signature_of(info.analysis), schedule, use=args.regions)
    plan, _ = source.open(next(iter(given.streams)) if isinstance(given, Plan) else "main")
    words = f"SV4D's schedule, sigma {plan_ends(schedule)}"
    return dataclasses.replace(info, plan=plan, schedule=words, left_out=left_out)


def plan_ends(schedule: Schedule) -> str:
    """The first and the last level of a schedule in words."""
    return f"{schedule.levels[0]:g} to {schedule.levels[-1]:g}"


def _write(path: Path, suffix: str, info: Explanation, data: Mapping[str, Any]) -> None:
    if suffix == ".json":
        path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    elif suffix == ".png":
        title = f"plan {info.plan.name} of {data['model']}, {info.plan.steps} steps"
        shares = [flops / info.flops_per_call for flops in info.cost.by_step]
        write_plan_png(path, info.lines, shares, title)
    else:
        path.write_text(page(info, data["model"]), encoding="utf-8")
