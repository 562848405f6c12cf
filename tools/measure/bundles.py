"""Measures how ONNX Runtime holds the weights of nano's engines: three ways, each by itself.

    shared       every session reads the one mapped weight file, without laying it out anew
    packed       every session lays its weights out for its kernels
    conditional  one session for all variants, which packs its weights once

For each: bytes of the bundle, what a process that loads it and opens every engine grows by, and
after a sample; seconds of a sample, the ways in turn; and the cold start: from the start of a
process to its first step done, beside a process that imports torch and loads the weights.

Example:
    python tools/measure/bundles.py --runs 5 --out tools/results/bundles-nano-v1.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

WAYS: Mapping[str, Mapping[str, Any]] = {
    "shared": {"settings": {"weights": "shared"}},
    "packed": {"settings": {"weights": "packed"}},
    "conditional": {"settings": {"weights": "packed"}, "form": "conditional"},
}
_CALL = "call.safetensors"


def built(folder: Path, plan: str, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
    """A bundle each way, of nano under a preset; what each says of its size, by way."""
    import torch
    from safetensors.torch import save_file
    from turbo4d.compiler.bundle.front_door import build
    from turbo4d.models.schedule import edm_sigmas
    from turbo4d.tools.asset import image_size, prepare
    from turbo4d.tools.bundles.building import first_call
    from turbo4d.tools.load_model import load_model
    from turbo4d.tools.scene_input import held_out_scene

    model = load_model("nano", None, torch.float32, torch.device("cpu"))
    config = model.config
    scene = held_out_scene(0, config.views or 1, config.frames or 1, image_size(model))
    call = first_call(model, prepare(model, scene, 0))
    tensors = {name: value for name, value in call.items() if isinstance(value, torch.Tensor)}
    others = {name: value for name, value in call.items() if name not in tensors}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / _CALL,
              {"others": json.dumps(others)})  # fmt: skip
    rows: dict[str, Any] = {}
    for way, options in WAYS.items():
        say(f"building {way}")
        report = build(
            model.network, kwargs=call, plan=plan, levels=edm_sigmas(steps).tolist(),
            target="onnxruntime", out=folder / way, name="nano", references=False, **options,
        )  # fmt: skip
        rows[way] = {
            "engines": len(report.engines),
            "weights_bytes": report.weights_bytes,
            "graph_bytes": sum(each.graph_bytes for each in report.engines),
            "files_bytes": report.files_bytes,
        }
    return rows


def sampled(folder: Path, ways: Sequence[str], runs: int, say: Callable[[str], None]) -> Any:
    """Seconds of a sample from each bundle, in turn."""
    import torch
    from turbo4d.runtime.bundle.load import load
    from turbo4d.tools.timing import alternate

    denoisers = {way: load(folder / way) for way in ways}
    call = _call(folder / _CALL)
    jobs = {way: partial(_sample, denoiser, call) for way, denoiser in denoisers.items()}
    taken = alternate(jobs, runs, torch.device("cpu"), say)
    return {
        way: {"seconds": taken[way].timing.median, "spread": taken[way].timing.spread}
        for way in jobs
    }


def _call(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        return {**tensors, **json.loads((file.metadata() or {})["others"])}


def _sample(denoiser: Any, call: Mapping[str, Any], steps: int | None = None) -> Any:
    """The plan's steps on one call; without a sampler, whose work would be in the figure."""
    import torch
    from turbo4d.runtime.session import session

    plan = denoiser.plan
    with torch.no_grad(), session(denoiser, steps=plan.steps) as run:
        result = None
        for step in range(steps or plan.steps):
            run.step(step)
            result = denoiser(**call)
        return result


def child(what: str, folder: Path, began: float) -> dict[str, float]:
    """What a process of its own sees; `began` is when it was started, in seconds of the epoch."""
    import torch

    if what == "weights":
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        path = folder / manifest["weights_file"]
        size = path.stat().st_size
        held = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).clone()
        return {"start_s": time.time() - began, "held_bytes": held.numel()}
    from turbo4d.runtime.bundle.load import load

    call = _call(folder.parent / _CALL)
    before = _resident()
    denoiser = load(folder)
    _sample(denoiser, call, 1)
    start_s = time.time() - began
    denoiser.open()
    opened = _resident()
    _sample(denoiser, call)
    after = _resident()
    return {
        "start_s": start_s,
        "opened_bytes": opened["Rss"] - before["Rss"],
        "sampled_bytes": after["Rss"] - before["Rss"],
        "sampled_private_bytes": after["Private"] - before["Private"],
    }


def _resident() -> dict[str, int]:
    """What this process holds in memory, and what of it no file or other process backs."""
    sizes: dict[str, int] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, size, *_ = line.split()
        sizes[name.rstrip(":")] = int(size) * 1024
    return {"Rss": sizes["Rss"], "Private": sizes["Private_Clean"] + sizes["Private_Dirty"]}


def processes(what: str, folder: Path, times: int = 3) -> dict[str, float]:
    """What processes of their own see, the median of some."""
    found: list[dict[str, float]] = []
    for _ in range(times):
        command = [sys.executable, str(Path(__file__).resolve()), "--child", what, str(folder)]
        told = {**os.environ, "TURBO4D_BEGAN": repr(time.time())}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=told)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: median(each[name] for each in found) for name in found[0]}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", default="balanced")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child is not None:
        what, folder = args.child
        print(json.dumps(child(what, Path(folder), float(os.environ["TURBO4D_BEGAN"]))))
        return 0
    load_average = os.getloadavg()[0]
    say = partial(print, file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = built(folder, args.plan, args.steps, say)
        for way in WAYS:
            say(f"{way}: a process of its own")
            rows[way] |= processes("bundle", folder / way)
        alone = processes("weights", folder / "shared")
        for way, taken in sampled(folder, [*WAYS], args.runs, say).items():
            rows[way] |= taken
    text = json.dumps({**_facts(), "plan": args.plan, "steps": args.steps, "runs": args.runs,
                       "load_average": load_average, "weights_alone": alone, "ways": rows},
                      indent=1) + "\n"  # fmt: skip
    if args.out is None:
        sys.stdout.write(text)
    else:
        args.out.write_text(text)
    return 0


def _facts() -> dict[str, Any]:
    from importlib.metadata import version

    import torch
    from turbo4d.tools.environment import commit, device_name

    return {
        "model": "nano",
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "onnxruntime": version("onnxruntime"),
        "commit": commit(),
    }


if __name__ == "__main__":
    sys.exit(main())
