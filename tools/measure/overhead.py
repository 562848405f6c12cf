"""Measures what turbo4d itself costs per step, beside engines that do nothing.

Three places, each in microseconds: the runtime from the backend's entry; torch.compile's front door
around a backend that does nothing, which is the guards on the module's parameters and the call; and
the front door around the runtime. The last two once more without guards on modules, which is
unsafe where a module's attributes may change after compiling.

Example:
    python tools/measure/overhead.py --parameters 1900 --out tools/results/overhead.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from turbo4d.runtime.action import REUSE
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.plan import Plan, RegionInfo
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.signature import Signature
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.environment import commit, device_name

import turbo4d

Door = Callable[[Tensor], Any]
_STEPS = 20
_GEOMETRY = Geometry(batch=1, views=1, frames=1, height=1, width=1)
_CORE = RegionInfo("core", "core", None, residual=False, slot_bytes=8, flops=1)


class Toy(nn.Module):
    """Normalised linear layers, two to a block, as a network nests them; [2] in, [2] out."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 2)) for _ in range(parameters // 4)]
        self.blocks = nn.ModuleList(
            nn.Sequential(*layers[at : at + 2]) for at in range(0, len(layers), 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


class EmptyEngine:
    """Gives what it has: one output, one slot per region."""

    def __init__(self, key: VariantKey) -> None:
        self.key, self.reads, self.writes = key, key.reads, key.writes
        self._outputs, self._slots = [torch.zeros(2)], [torch.zeros(2) for _ in key.writes]

    def __call__(
        self, args: Sequence[Tensor], prologue: Sequence[Tensor], slots_in: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        return self._outputs, self._slots


def empty_runner(weights: int) -> Runner:
    """A runner of so many weights and one input, with empty engines and an empty prologue."""
    signature = Signature(
        names=(*(f"w{at}" for at in range(weights)), "x"),
        kinds=("weight",) * weights + ("input",),
        sample=weights, level=None, conditioning=(), regions=(_CORE,), model="toy",
        geometry=_GEOMETRY, weights_bytes=0,
    )  # fmt: skip
    values = [torch.zeros(2)]
    plan = Plan(
        name="overhead", model="toy", geometry=_GEOMETRY, level_unit="sigma",
        levels=tuple(float(_STEPS - step) for step in range(_STEPS)),
        streams={"main": tuple({"core": REUSE} if step % 2 else {} for step in range(_STEPS))},
        max_age=1, max_variants=2,
    )  # fmt: skip
    return Runner(signature, EmptyEngine, plan=plan, prologue=lambda: lambda args: values)


def empty_backend(gm: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
    """What a backend costs that does nothing."""
    outputs = [torch.zeros(2)]
    return lambda *args: outputs


def runtime_backend(gm: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
    """The runtime behind torch.compile, its engines empty; weights first, as in a signature."""
    at_weights = [at for at, value in enumerate(inputs) if isinstance(value, nn.Parameter)]
    at_input = next(at for at in range(len(inputs)) if at not in set(at_weights))
    runner = empty_runner(len(at_weights))
    return lambda *args: runner(*(args[at] for at in at_weights), args[at_input])


@contextmanager
def steps_of(target: object) -> Iterator[Callable[[int], None]]:
    """A session that is told each step, where its target has a runtime; else nothing is told."""
    with turbo4d.session(target) as run:
        yield run.step


@contextmanager
def nothing(target: object) -> Iterator[Callable[[int], None]]:
    """As `steps_of`, for a target without a runtime."""
    yield lambda step: None


def spent_us(door: Door, session: Any, runs: int) -> tuple[list[float], list[float]]:
    """Microseconds of each step of some runs by the clock and of the processor, saying included."""
    x = torch.zeros(2)
    wall: list[float] = []
    processor: list[float] = []
    for _ in range(runs):
        with torch.no_grad(), session(door) as say:
            for step in range(_STEPS):
                start, start_processor = time.perf_counter(), time.thread_time()
                say(step)
                door(x)
                processor.append((time.thread_time() - start_processor) * 1e6)
                wall.append((time.perf_counter() - start) * 1e6)
    return wall, processor


def runtime_door(parameters: int) -> tuple[Door, Any]:
    """The runtime without torch.compile."""
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(parameters)]
    runner = empty_runner(parameters)
    return lambda x: runner(*weights, x), lambda door: steps_of(runner)


def compiled_door(
    parameters: int, backend: Callable[..., Any], session: Any, *, guarded: bool
) -> tuple[Door, Any]:
    """A toy module behind torch.compile."""
    # What torch compiled of one toy would be tried for the next: they share their code.
    torch.compiler.reset()
    options: Any = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    module = Toy(parameters).eval()
    return torch.compile(
        module, backend=backend, fullgraph=True, options=None if guarded else options
    ), session


def places(parameters: int) -> dict[str, Callable[[], tuple[Door, Any]]]:
    """Where a step's time may go -> what opens a door there, and its session.

    Args:
        parameters: of the toy.
    """
    compiled = partial(compiled_door, parameters)
    return {
        "runtime": partial(runtime_door, parameters),
        "front_door": partial(compiled, empty_backend, nothing, guarded=True),
        "front_door_unguarded": partial(compiled, empty_backend, nothing, guarded=False),
        "front_door_and_runtime": partial(compiled, runtime_backend, steps_of, guarded=True),
        "front_door_and_runtime_unguarded": partial(
            compiled, runtime_backend, steps_of, guarded=False
        ),
    }


def measure(parameters: int, runs: int) -> dict[str, Any]:
    """Medians in microseconds with the spread, one place after the other."""
    rows: dict[str, dict[str, float]] = {}
    for name, open_place in places(parameters).items():
        door, session = open_place()
        spent_us(door, session, 1)  # compiles, and builds what is built once
        wall, processor = spent_us(door, session, runs)
        tenths = statistics.quantiles(wall, n=10)
        rows[name] = {
            "median_us": round(statistics.median(wall), 1),
            "least_us": round(min(wall), 1),
            "p10_us": round(tenths[0], 1),
            "p90_us": round(tenths[-1], 1),
            "processor_median_us": round(statistics.median(processor), 1),
        }
    return {
        "parameters": parameters, "steps": _STEPS, "runs": runs, "rows": rows,
        "device": device_name(torch.device("cpu")), "cores": os.cpu_count(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "torch": torch.__version__, "commit": commit(),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parameters", type=int, default=1900)
    parser.add_argument("--runs", type=int, default=30, help="of 20 steps each")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    text = json.dumps(measure(args.parameters, args.runs), indent=2) + "\n"
    if args.out is None:
        sys.stdout.write(text)
    else:
        args.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
