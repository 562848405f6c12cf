"""Measures one conditional engine against an engine for each variant, on nano.

The plan mixes reuse of the core, of a level, of chains and of blocks with bypass of chains. Both
ways run the same steps on the same slots, in turn: latency under lowering eager and under ONNX
Runtime, bytes of the engines on disk, and what a process that does nothing but open and call them
grows by.

Example:
    python tools/measure/conditional.py --runs 15 --out tools/results/conditional-nano-v1.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.backend import lower
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.costs import variant_flops
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.flat_args import flat_args
from turbo4d.compiler.lower import get_lowering
from turbo4d.compiler.lower.eager import EagerPrologue
from turbo4d.compiler.lower.onnxruntime import OnnxRuntimeEngine
from turbo4d.compiler.shared_engines import SharedEngines
from turbo4d.compiler.specialise import specialise
from turbo4d.models.example_inputs import example_inputs
from turbo4d.runtime.action import BYPASS, REUSE, Action
from turbo4d.runtime.conditional_engine import ConditionalEngine
from turbo4d.runtime.engine import Engine
from turbo4d.runtime.engines.onnxruntime import OnnxSession
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.load_model import load_model
from turbo4d.tools.timing import alternate

WAYS = ("specialised", "conditional")
LOWERINGS = ("eager", "onnxruntime")
Values = Sequence[Tensor]


def rows_of(analysis: Analysis) -> dict[str, dict[str, Action]]:
    """What each step of the plan does, by what it is called."""
    kinds: dict[str, list[str]] = {}
    for region in analysis.regions:
        kinds.setdefault(region.kind, []).append(region.name)
    chains = kinds["chain"]
    motion = [name for name in kinds["block"] if name.endswith(".motion")]
    mixed = {name: (REUSE, BYPASS)[at % 2] for at, name in enumerate(chains)}
    return {
        "everything computed": {},
        "core reused": {"core": REUSE},
        "level 1 reused": {"level.1": REUSE},
        "chains reused": dict.fromkeys(chains, REUSE),
        "chains bypassed": dict.fromkeys(chains, BYPASS),
        "chains reused and bypassed in turn": mixed,
        "motion blocks reused": dict.fromkeys(motion, REUSE),
    }


def keys_of(analysis: Analysis) -> dict[str, VariantKey]:
    """The variant of each step."""
    rows = rows_of(analysis)
    plan = Plan(
        name="mixed", model=analysis.capture.fingerprint, geometry=analysis.geometry,
        levels=tuple(float(len(rows) - step) for step in range(len(rows))), level_unit="sigma",
        streams={"main": tuple(rows.values())}, max_age=len(rows), max_variants=len(rows),
    )  # fmt: skip
    keys = plan.check([region.info for region in analysis.regions]).keys["main"]
    return {name: key for name, key in zip(rows, keys, strict=True) if key is not None}


class Nano:
    """The trained network: its graph, one call's arguments, and the engines of every step."""

    def __init__(self) -> None:
        model = load_model("nano", None, torch.float32, torch.device("cpu"))
        call = dict(example_inputs(model.config))
        self.analysis = analyse(capture_export(model.network, (), call))
        self.args = tuple(flat_args(self.analysis.capture, (), call))
        self.prologue = EagerPrologue(exact_form(self.analysis).prologue)(self.args)
        self.keys = keys_of(self.analysis)

    def engines(self, lowering: str, way: str) -> dict[str, Engine]:
        """By step; `made` has what was lowered."""
        one = partial(lower, lowering=get_lowering(lowering))
        if way == "conditional":
            shared = SharedEngines(self.analysis, one)
            return {name: shared(key) for name, key in self.keys.items()}
        return {name: one(specialise(self.analysis, key)) for name, key in self.keys.items()}

    def run(
        self, engines: Mapping[str, Engine], slots: Mapping[str, list[Tensor]] | None = None
    ) -> tuple[dict[str, Values], dict[str, list[Tensor]]]:
        """All steps in order: what each gives, slots included, and the slots it left.

        Args:
            engines: by step.
            slots: that every step reads, instead of those written before it.
        """
        held: dict[str, list[Tensor]] = {**(slots or {})}
        given: dict[str, Values] = {}
        for name, engine in engines.items():
            outputs, written = self.step(engine, held)
            given[name] = (*outputs, *written)
            if slots is None:
                held.update({region: [] for region in engine.writes})
                for region, slot in zip(engine.writes, written, strict=True):
                    held[region].append(slot)
        return given, held

    def step(self, engine: Engine, slots: Mapping[str, list[Tensor]]) -> tuple[Values, Values]:
        """One call on the slots it reads."""
        left = {name: iter(slots[name]) for name in engine.reads}
        return engine(self.args, self.prologue, [next(left[name]) for name in engine.reads])


def latency(nano: Nano, runs: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row per step: seconds of each lowering each way, and how far the ways are apart."""
    engines = {(low, way): nano.engines(low, way) for low in LOWERINGS for way in WAYS}
    slots = nano.run(engines["eager", "specialised"])[1]
    results = {at: nano.run(one, slots)[0] for at, one in engines.items()}
    rows: list[dict[str, Any]] = []
    for name, key in nano.keys.items():
        jobs = {
            f"{low} {way}": partial(_output, nano, one[name], slots)
            for (low, way), one in engines.items()
        }
        taken = alternate(jobs, runs, torch.device("cpu"), lambda text, n=name: say(f"{n}, {text}"))
        rows.append(
            {
                "name": name,
                "variant": key.name,
                "flops": variant_flops(specialise(nano.analysis, key)),
                "seconds": {job: taken[job].timing.median for job in jobs},
                "spread": {job: taken[job].timing.spread for job in jobs},
                "difference": {
                    f"{low} {way}": _apart(
                        results["eager", "specialised"][name], results[low, way][name]
                    )
                    for low, way in engines
                },
            }
        )
    return rows


def _output(nano: Nano, engine: Engine, slots: Mapping[str, list[Tensor]]) -> Tensor:
    return nano.step(engine, slots)[0][0]


def _apart(first: Values, second: Values) -> float:
    """The largest relative difference of two lists of tensors."""
    pairs = zip(first, second, strict=True)
    return max(float((a - b).norm() / a.norm()) for a, b in pairs)


def sizes(nano: Nano, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row per lowering and way: graphs, bytes on disk, and what a process grows by."""
    rows: list[dict[str, Any]] = []
    for way in WAYS:
        say(f"sizes, eager {way}")
        grown = _grown(["--child", f"eager {way}"])
        count = 1 if way == "conditional" else len(nano.keys)
        rows.append({"lowering": "eager", "way": way, "graphs": count, **grown})
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            say(f"sizes, onnxruntime {way}")
            rows.append(_onnx_sizes(nano, way, Path(folder) / way))
    return rows


def _onnx_sizes(nano: Nano, way: str, folder: Path) -> dict[str, Any]:
    engines = nano.engines("onnxruntime", way)
    slots = nano.run(nano.engines("eager", "specialised"))[1]
    nano.run(engines, slots)
    lowered = {id(one): one for one in map(_lowered, engines.values())}
    files = [one.file for one in lowered.values() if one.file is not None]
    weights = files[0].path.parent / "weights.bin"
    folder.mkdir()
    for file in (*(file.path for file in files), weights):
        (folder / file.name).write_bytes(file.read_bytes())
    return {
        "lowering": "onnxruntime",
        "way": way,
        "graphs": len(files),
        "graph_bytes": sum(file.path.stat().st_size for file in files),
        "weights_bytes": weights.stat().st_size,
        "weights_bytes_apart": sum(file.weights_bytes for file in files),
        **_grown(["--child", str(folder)]),
    }


def _lowered(engine: Engine) -> OnnxRuntimeEngine:
    """The engine behind a variant's own."""
    behind = engine.shared.engine if isinstance(engine, ConditionalEngine) else engine
    if not isinstance(behind, OnnxRuntimeEngine):
        raise TypeError(f"{type(behind).__name__} is no engine of ONNX Runtime")
    return behind


def _grown(arguments: Sequence[str], times: int = 3) -> dict[str, int]:
    """Bytes that a process of its own grew by, the median of some."""
    found: list[dict[str, int]] = []
    for _ in range(times):
        command = [sys.executable, str(Path(__file__).resolve()), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: int(median(each[name] for each in found)) for name in found[0]}


def child(what: str) -> dict[str, int]:
    """Open and call engines in this process; the bytes it grew by when they were open, and called.

    Args:
        what: "eager specialised", "eager conditional", or a folder of ONNX graphs.
    """
    if what.startswith("eager "):
        nano = Nano()
        before = resident_bytes()
        engines = nano.engines("eager", what.split()[1])
        opened = resident_bytes()
        nano.run(engines)
    else:
        warm = torch.randn(64, 64)
        del warm
        before = resident_bytes()
        sessions = [OnnxSession(path) for path in sorted(Path(what).glob("*.onnx"))]
        opened = resident_bytes()
        for session in sessions:
            session([torch.zeros(form.shape, dtype=form.dtype) for form in session.inputs])
    return {"opened_bytes": opened - before, "resident_bytes": resident_bytes() - before}


def resident_bytes() -> int:
    """What this process holds in memory, as Linux counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status names no VmRSS")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", metavar="WHAT", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child is not None:
        print(json.dumps(child(args.child)))
        return 0
    load_average = os.getloadavg()[0]
    say = partial(print, file=sys.stderr, flush=True)
    nano = Nano()
    found = {
        "model": "nano",
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
        "runs": args.runs,
        "load_average": load_average,
        "rows": latency(nano, args.runs, say),
        "sizes": sizes(nano, say),
    }
    text = json.dumps(found, indent=1) + "\n"
    if args.out is None:
        sys.stdout.write(text)
    else:
        args.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
