"""Exports the full-size sv4d to ONNX and builds engines of it for a GPU that is not here.

The network lies on the "meta" device; each weight is drawn when its turn comes to be written, so
none is held. Written are all graphs of a plan's bundle, and one level, cut out as a graph of its
own; engines are built of those that --engines names. Weights are random: what is measured is
memory, bytes and seconds. One JSON object is printed.

Example:
    python tools/measure/full_size.py --folder out/full-size --engines level,compute --out full.json
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import time
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, fx
from turbo4d.compiler.bundle.graphs import check_graph
from turbo4d.compiler.bundle.part import Part
from turbo4d.compiler.bundle.parts import Parts, take_apart
from turbo4d.compiler.bundle.wanted import Wanted
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.lower.onnx_export import write_graph
from turbo4d.compiler.lower.onnx_weights import ALIGNMENT, raw
from turbo4d.models.config import SV4DConfig
from turbo4d.models.example_inputs import example_inputs
from turbo4d.models.schedule import edm_sigmas
from turbo4d.models.unet import SV4DUNet
from turbo4d.runtime.engines.tensorrt_build import BuildSettings, build
from turbo4d.tools.environment import commit, device_name

SUMMARY = "Exports the full-size sv4d to ONNX and builds engines of it for a GPU that is not here."
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
CHUNK = 1 << 24
SPREAD = 0.02


class DrawnWeights:
    """A weight file whose entries are drawn as they are written, each name once.

    Args:
        file: to write to.
        name: of the file.
    """

    inline_bytes = 0

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.location = name
        self._file = file
        self._placed: dict[str, tuple[int, int]] = {}
        self._generator = torch.Generator().manual_seed(0)

    def place(self, name: str, value: Tensor) -> tuple[int, int]:
        """Offset and length of the weight of a placeholder."""
        if name not in self._placed:
            self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
            offset = self._file.tell()
            if value.device.type == "meta":
                self._draw(value)
            else:
                self._file.write(raw(value))
            self._placed[name] = offset, self._file.tell() - offset
        return self._placed[name]

    def _draw(self, value: Tensor) -> None:
        for first in range(0, value.numel(), CHUNK):
            count = min(CHUNK, value.numel() - first)
            drawn = torch.randn(count, generator=self._generator) * SPREAD
            self._file.write(raw(drawn.to(value.dtype)))


def cut_out(parts: Parts, name: str) -> Part:
    """One region of a step: what enters it becomes placeholders, what leaves it returns.

    Args:
        parts: of the network; the last graph computes everything.
        name: of the region.
    """
    whole = parts.graphs[-1]
    region = next(each for each in parts.analysis.regions if each.name == name)
    nodes = {node.name: node for node in whole.module.graph.nodes}
    stops = {nodes[each] for each in region.entries if each in nodes}
    exits = [nodes[port.exit] for port in region.ports]
    needed, waiting = set(exits), [*exits]
    while waiting:
        node = waiting.pop()
        for operand in () if node in stops else node.all_input_nodes:
            if operand not in needed:
                needed.add(operand)
                waiting.append(operand)
    graph = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    for node in whole.module.graph.nodes:
        if node in stops:
            env[node] = graph.placeholder(f"entry_{node.name}")
            env[node].meta["val"] = node.meta["val"]
        elif node in needed:
            env[node] = graph.node_copy(node, env.__getitem__)
    graph.output(tuple(env[node] for node in exits))
    held = {n: held for n, held in whole.held.items() if nodes[n] in needed}
    flops = sum(count_flops(graph).values())
    return Part("level", fx.GraphModule(whole.module, graph), (), (), held, flops)


def main() -> None:
    parser = argparse.ArgumentParser(description=SUMMARY)
    parser.add_argument("--model", default="sv4d", choices=("sv4d", "sv4d2", "tiny"))
    parser.add_argument("--dtype", default="fp16", choices=sorted(DTYPES))
    parser.add_argument("--target", default="tensorrt-rtx")
    parser.add_argument("--device", default="sm89")
    parser.add_argument("--level", help="region to cut out (default: the smallest level)")
    parser.add_argument("--plan", default="balanced", help="a preset whose variants are written")
    parser.add_argument("--form", default="variants", choices=("conditional", "variants"))
    parser.add_argument(
        "--engines", default="level", help="names of graphs to build, with commas; all; or none"
    )
    parser.add_argument("--folder", type=Path, required=True, help="for graphs, weights, engines")
    parser.add_argument("--keep", action="store_true", help="leave the folder's files there")
    parser.add_argument("--out", type=Path, help="a JSON file")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=False)
    try:
        data = measured(args)
    finally:
        if not args.keep:
            shutil.rmtree(args.folder)
    text = json.dumps(data, indent=1)
    if args.out is not None:
        args.out.write_text(text + "\n")
    print(text)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """What was made, and what it took."""
    marks: list[dict[str, Any]] = []
    started = time.perf_counter()

    def mark(stage: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        marks.append({"stage": stage, "s": time.perf_counter() - started, "peak_bytes": peak})
        print(f"{stage}: {marks[-1]['s']:.1f} s, peak {peak >> 20} MiB", file=sys.stderr)

    dtype = DTYPES[args.dtype]
    config = SV4DConfig.named(args.model)
    network = SV4DUNet(config, device="meta", dtype=dtype).eval()
    call: Any = example_inputs(config, device="meta", dtype=dtype)
    wanted = Wanted(args.plan, levels=edm_sigmas(20)[:-1].tolist(), form=args.form)
    parts = take_apart(network, (), dict(call), wanted)
    mark("captured, analysed and specialised")
    graphs = list(parts.graphs)
    level = ""
    if args.form == "variants":
        levels = [region for region in parts.analysis.regions if region.kind == "level"]
        level = args.level or min(levels, key=lambda region: region.flops).name
        graphs.append(cut_out(parts, level))
    with (args.folder / "weights.bin").open("wb") as file:
        weights = DrawnWeights(file, "weights.bin")
        rows = [
            written(part, parts, args.folder / f"{at}.onnx", weights)
            for at, part in enumerate(graphs)
        ]
    mark("written")
    for at, part in enumerate(graphs):
        check_graph(f"engine {part.name!r}", args.folder / f"{at}.onnx")
    mark("checked")
    chosen = args.engines.split(",")
    settings = BuildSettings(args.target, args.device)
    for at, row in enumerate(rows):
        if row["name"] in chosen or args.engines == "all":
            plan = build(args.folder / f"{at}.onnx", settings)
            row |= {
                "engine_bytes": len(plan.data),
                "packed_bytes": len(zlib.compress(plan.data)),
                "network_layers": plan.layers,
                "build_s": plan.seconds,
                "status": "built, not executed",
            }
            mark(f"built {row['name']}")
    return {
        "model": args.model,
        "weights": "random",
        "params": sum(parameter.numel() for parameter in network.parameters()),
        "dtype": args.dtype,
        "geometry": parts.analysis.geometry.as_dict(),
        "plan": parts.plan.name,
        "form": args.form,
        "target": f"{args.target}:{args.device}",
        "level": level,
        "weights_bytes": (args.folder / "weights.bin").stat().st_size,
        "graphs": rows,
        "stages": marks,
        "peak_bytes": marks[-1]["peak_bytes"],
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "library": metadata.version(args.target),
        "commit": commit(),
    }


def written(part: Part, parts: Parts, path: Path, weights: DrawnWeights) -> dict[str, Any]:
    """Write a graph, and the weights that no graph before it had."""
    held = {placeholder: parts.weights[name] for placeholder, name in part.held.items()}
    results: Any = part.module.graph.output_node().args[0]
    outputs = [row.name for row in part.gives] or [f"output_{at}" for at in range(len(results))]
    file = write_graph(part.name, part.module, held, outputs, path, weights)
    return {
        "name": part.name,
        "nodes": len(part.module.graph.nodes),
        "flops": part.flops,
        "inputs": len(file.inputs),
        "weights": len(held),
        "weights_bytes": file.weights_bytes,
        "graph_bytes": path.stat().st_size,
    }


if __name__ == "__main__":
    main()
