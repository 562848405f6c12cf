"""What `turbo4d explain` does once its call has been read: capture, plan, describe, write."""

from __future__ import annotations

import argparse
import dataclasses
import html
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
from turbo4d.tools.failures import CallError
from turbo4d.tools.load_model import DTYPES, make
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.plan_picture import plan_lines, plan_table, write_plan_png

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
    call = _call(args.model, args.checkpoint, DTYPES[args.dtype])
    info = turbo4d.explain(call.network, call.args, call.kwargs, "none", args.geometry)
    info = _planned(info, args)
    data = {**info.to_json(), "model": args.model}
    if path is not None:
        _write(path, args.out.suffix, info, data)
    written = "" if path is None else f"\n\nwritten to {args.out}"
    return Outcome(data, f"{args.model}\n\n{info}\n\n{_by_step(info)}{written}")


def _by_step(info: Explanation) -> str:
    flops = info.to_json()["plan"]["flops_by_step"]
    rows = [
        f"{step:>4}  {count / info.flops_per_call:>6.1%}  {count / 1e12:.4g} TFLOP"
        for step, count in enumerate(flops)
    ]
    return "\n".join(["step  operations of a call", *rows])


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


def _planned(info: Explanation, args: argparse.Namespace) -> Explanation:
    given = read_plan(args.plan)
    schedule = Schedule.of(edm_sigmas(args.steps).tolist(), None)
    source = PlanSource(given, signature_of(info.analysis), schedule, use=args.regions)
    plan, _ = source.open(next(iter(given.streams)) if isinstance(given, Plan) else "main")
    return dataclasses.replace(
        info, plan=plan, schedule=f"SV4D's schedule, sigma {plan_ends(schedule)}"
    )


def plan_ends(schedule: Schedule) -> str:
    """The first and the last level of a schedule in words."""
    return f"{schedule.levels[0]:g} to {schedule.levels[-1]:g}"


def _write(path: Path, suffix: str, info: Explanation, data: Mapping[str, Any]) -> None:
    lines = plan_lines(info.plan, [region.info for region in info.regions])
    title = f"plan {info.plan.name} of {data['model']}, {info.plan.steps} steps"
    if suffix == ".json":
        path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    elif suffix == ".png":
        write_plan_png(path, lines, title)
    else:
        path.write_text(_page(title, plan_table(lines), str(info)), encoding="utf-8")


def _page(title: str, table: str, text: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; color: #222; background: #fff; }}
table.plan {{ border-collapse: separate; border-spacing: 2px; font-size: 13px; }}
table.plan td {{ width: 22px; height: 17px; }}
table.plan th {{ font-weight: normal; text-align: left; padding-right: 8px; }}
pre {{ font-size: 13px; }}
</style></head>
<body><h1>{html.escape(title)}</h1>
{table}
<pre>{html.escape(text)}</pre>
</body></html>
"""
