"""Measures what compiling costs: plain torch.compile beside three lowerings of a whole plan.

Each figure is of a fresh process. Cold runs start with an empty TORCHINDUCTOR_CACHE_DIR and
TURBO4D_GRAPH_STORE of their own, warm runs with what the cold one left. Seconds run from the call
of torch.compile to the first result, torch, Dynamo and turbo4d being imported (`imports` says what
importing Dynamo takes); for turbo4d, the engines of all variants of the plan are within. CPU
seconds count the C++ compilers too: they say more than the clock on a machine that others use.
`dynamo` is what passes before the backend is called: every backend pays it in every process.

Example:
    python tools/measure/compile_cost.py --out tools/results/compile-cost-nano-v1.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.backend import CompiledDenoiser, compile_denoiser, lower, signature_of
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.lower import get_lowering
from turbo4d.compiler.lower.eager import EagerPrologue
from turbo4d.compiler.options import Options
from turbo4d.compiler.specialise import specialise
from turbo4d.models.example_inputs import example_inputs
from turbo4d.models.schedule import edm_sigmas
from turbo4d.runtime.policy import resolve
from turbo4d.runtime.progress import Progress
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.load_model import load_model
from turbo4d.tools.timing import alternate

PLAN = "balanced"
STEPS = 20
# torch.compile as it is, and turbo4d under lowering "inductor", under "native" and under "eager".
SYSTEMS = ("plain", "turbo", "native", "eager")
COMPUTE = VariantKey((), (), exact=True)


class Door:
    """turbo4d's backend, which at the first call builds every variant of the plan.

    Args:
        lowering: of the variants.

    Attributes:
        found: what was built, and what it cost.
        begun: when the network was called first.
    """

    def __init__(self, lowering: str = "inductor") -> None:
        self.found: dict[str, Any] = {}
        self.begun = clock()
        self._lowering = lowering
        self._engine: Any = None
        self._values: Sequence[Tensor] = ()

    def __call__(self, gm: Any, inputs: Sequence[Any]) -> CompiledDenoiser:
        self.found["dynamo"] = since(self.begun)
        begun = clock()
        denoiser = compile_denoiser(gm, inputs, Options.read({"lowering": self._lowering}))
        if denoiser.analysis is None:
            raise SystemExit("compile-cost: the model is no denoiser")
        self.found["capture"] = since(begun)
        self._analysis = denoiser.analysis
        denoiser.call = self.step
        return denoiser

    def step(self, *args: Tensor) -> Sequence[Tensor]:
        """The variant that computes everything; its prologue is run once, as in a session."""
        if "variants" not in self.found:
            self._build(args)
        return self._engine(args, self._values, ())[0]

    def _build(self, args: Sequence[Tensor]) -> None:
        analysis, lowering = self._analysis, get_lowering(self._lowering)
        held: Collection[object] = getattr(lowering, "library", ())
        begun = clock()
        self._values = EagerPrologue(exact_form(analysis).prologue)(args)
        self.found["prologue"] = since(begun)
        rows: list[dict[str, Any]] = []
        for key in (*keys_of(analysis), COMPUTE):
            begun, before = clock(), len(held)
            engine: Any = lower(specialise(analysis, key), lowering)
            steps = engine.program.steps if self._lowering == "inductor" else ()
            counts = {"segments": len(steps), "new": len(held) - before}
            rows.append({"name": key.name, **counts, **since(begun)})
            self._engine = engine
        self.found |= {"variants": rows, "distinct_segments": len(held)}


def keys_of(analysis: Analysis) -> list[VariantKey]:
    """The variants of the plan, but the one that computes everything and writes nothing."""
    signature = signature_of(analysis)
    plan = resolve(
        PLAN,
        levels=edm_sigmas(STEPS).tolist(),
        model=signature.model,
        geometry=signature.geometry,
        regions=signature.regions,
    )
    keys = (plan.variant("main", step, signature.regions) for step in range(STEPS))
    return [key for key in dict.fromkeys(keys) if key != COMPUTE]


def clock() -> dict[str, float]:
    """Seconds on the wall, and of CPU of this process and of the compilers it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(usage.ru_utime + usage.ru_stime for usage in used)
    return {"wall_s": time.perf_counter(), "cpu_s": cpu_s}


def since(begun: dict[str, float]) -> dict[str, float]:
    """What passed since `begun`."""
    return {name: round(value - begun[name], 2) for name, value in clock().items()}


def child(system: str, model: str, runs: int) -> dict[str, Any]:
    """What one process measures: one of SYSTEMS, or "steps", which compares their speed."""
    network = load_model(model, None, torch.float32, torch.device("cpu")).network
    started = clock()
    torch.compile(torch.nn.Identity(), backend="eager")(torch.zeros(1))  # imports Dynamo
    imports = since(started)
    call: dict[str, Any] = dict(example_inputs(network.config, branches=2, dtype=torch.float32))
    door = Door(system if system in ("native", "eager") else "inductor")
    plain = torch.compile(network, backend="inductor", dynamic=False)
    turbo = torch.compile(network, backend=door, dynamic=False)
    native = torch.compile(network, backend=Door("native"), dynamic=False)
    if system == "steps":
        with torch.no_grad():
            return steps(
                {
                    "eager": lambda: network(**call),
                    "plain": lambda: plain(**call),
                    "turbo": lambda: turbo(**call),
                    "native": lambda: native(**call),
                },
                runs,
            )
    begun = door.begun = clock()
    with torch.no_grad():
        (plain if system == "plain" else turbo)(**call)
    return since(begun) | {"imports": imports} | door.found


def steps(jobs: dict[str, Callable[[], Tensor]], runs: int) -> dict[str, Any]:
    """Interleaved runs of one step each, and how far each result is from the first job's."""
    results = [job() for job in jobs.values() for _ in range(2)][::2]
    timed = alternate(jobs, runs, torch.device("cpu"), lambda text: None)
    error = [float((result - results[0]).norm() / results[0].norm()) for result in results]
    return {
        name: {
            "median_s": round(each.timing.median, 4),
            "spread_s": [round(end, 4) for end in each.timing.spread],
            "relative_error": error[place],
        }
        for place, (name, each) in enumerate(timed.items())
    }


def spawn(system: str, args: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """A fresh process with its folder of caches."""
    words = [sys.executable, __file__, "--model", args.model, "--runs", str(args.runs)]
    load = os.getloadavg()[0]
    done = subprocess.run(
        [*words, "--child", system],
        env={
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": str(cache),
            "TURBO4D_GRAPH_STORE": str(cache / "graphs"),
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1]) | {"load_before": round(load, 1)}


def measure(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Cold and warm of both, then their steps."""
    found: dict[str, Any] = {
        "model": args.model,
        "plan": PLAN,
        "steps": STEPS,
        "device": device_name(torch.device("cpu")),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
    }
    with tempfile.TemporaryDirectory() as folder:
        caches = {system: Path(folder) / system for system in SYSTEMS}
        for system, cache in caches.items():
            for state in ("cold", "warm"):
                say(f"{system}, {state}")
                found[f"{system}_{state}"] = spawn(system, args, cache)
        shutil.copytree(caches["turbo"], caches["plain"], dirs_exist_ok=True)
        say("steps")
        found["step"] = spawn("steps", args, caches["plain"])
    for unit in ("wall_s", "cpu_s"):
        ratio = found["turbo_cold"][unit] / found["plain_cold"][unit]
        found[f"cold_ratio_{unit}"] = round(ratio, 2)
    return found


def summary(found: dict[str, Any]) -> str:
    """One line."""
    cold, plain, step = found["turbo_cold"], found["plain_cold"], found["step"]
    native = found["native_warm"]
    return (
        f"{found['model']}: cold {cold['wall_s']} s ({cold['cpu_s']} s CPU) for "
        f"{len(cold['variants'])} variants of {cold['distinct_segments']} distinct segments, plain "
        f"{plain['wall_s']} s ({plain['cpu_s']} s CPU); warm {found['turbo_warm']['wall_s']} s, "
        f"plain {found['plain_warm']['wall_s']} s; native cold {found['native_cold']['wall_s']} s, "
        f"warm {native['wall_s']} s, of which {native['dynamo']['wall_s']} s Dynamo's; "
        f"a step {step['turbo']['median_s']} s, native {step['native']['median_s']} s, plain "
        f"{step['plain']['median_s']} s, eager {step['eager']['median_s']} s; {found['device']}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano", help="nano or tiny")
    parser.add_argument("--runs", type=int, default=9, help="of each step (default: 9)")
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--child", choices=(*SYSTEMS, "steps"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        print(json.dumps(child(args.child, args.model, args.runs)))
        return 0
    with Progress() as progress:
        found = measure(args, progress.say)
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    print(summary(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
