"""Measures engines of nano with their weights as inputs against engines that hold them.

Each variant of the plan is built both ways for one GPU that need not be here; nothing is run. One
JSON object is printed: bytes, layers and seconds of each engine, and the sums.

Example:
    python tools/measure/engine_bytes.py --plan balanced --device sm89 --out engines.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from turbo4d.compiler.bundle.graphs import write_part
from turbo4d.compiler.bundle.parts import take_apart
from turbo4d.compiler.bundle.wanted import Wanted
from turbo4d.compiler.bundle.weights_file import write_weights
from turbo4d.models.example_inputs import example_inputs
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.engines.tensorrt_build import BuildSettings, build
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.load_model import load_model

SUMMARY = "Measures engines of nano with their weights as inputs against engines that hold them."
WAYS = ("inputs", "embedded")


def main() -> None:
    parser = argparse.ArgumentParser(description=SUMMARY)
    parser.add_argument("--model", default="nano", choices=("nano", "tiny"))
    parser.add_argument("--plan", default="balanced")
    parser.add_argument("--target", default="tensorrt-rtx")
    parser.add_argument("--device", default="sm89")
    parser.add_argument("--form", default="variants", choices=("conditional", "variants"))
    parser.add_argument("--out", type=Path, help="a JSON file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = measured(args, Path(folder))
    text = json.dumps(data, indent=1)
    if args.out is not None:
        args.out.write_text(text + "\n")
    print(text)


def measured(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A row for each engine, and their sums."""
    model = load_model(args.model, None, torch.float32, torch.device("cpu"))
    call: Any = example_inputs(model.config)
    wanted = Wanted(args.plan, levels=edm_sigmas(20)[:-1].tolist(), form=args.form)
    parts = take_apart(model.network, (), dict(call), wanted)
    weights = folder / "weights.bin"
    with weights.open("wb") as file:
        placed = {row.name: row for row in write_weights(parts.weights, file, lambda _: None)}
    rows: list[dict[str, Any]] = []
    for number, part in enumerate(parts.graphs):
        path = folder / f"{number}.onnx"
        write_part(part, path, weights, placed, parts.weights)
        row: dict[str, Any] = {"name": part.name, "graph_bytes": path.stat().st_size}
        for way in WAYS:
            plan = build(path, BuildSettings(args.target, args.device, way))
            row[way] = {
                "engine_bytes": len(plan.data),
                "packed_bytes": len(zlib.compress(plan.data)),
                "s": plan.seconds,
                "layers": plan.layers,
            }
            row["nodes"] = plan.nodes
            print(f"{part.name}, {way}: {len(plan.data)} bytes", file=sys.stderr)
        rows.append(row)
    return {
        "model": args.model,
        "plan": parts.plan.name,
        "form": args.form,
        "target": f"{args.target}:{args.device}",
        "status": "built, not executed",
        "engines": rows,
        **{
            what: {way: sum(row[way][what] for row in rows) for way in WAYS}
            for what in ("engine_bytes", "packed_bytes", "s")
        },
        "weights_bytes": weights_bytes(placed),
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "library": metadata.version(args.target),
        "commit": commit(),
    }


def weights_bytes(placed: dict[str, Any]) -> int:
    """Of all weights, each once."""
    return max(row.offset + row.size_bytes for row in placed.values())


if __name__ == "__main__":
    main()
