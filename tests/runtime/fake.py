"""A denoiser of three regions in plain Python, its engines, and the plans that tests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from turbo4d.runtime.action import COMPUTE
from turbo4d.runtime.engine import Engine
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.plan import Plan, RegionInfo, VariantKey
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.session import Session
from turbo4d.runtime.signature import Signature

GEOMETRY = Geometry(batch=2, views=4, frames=3, height=8, width=8)
SLOT_BYTES = 4 * 6
REGIONS = (
    RegionInfo("core", "core", None, residual=False, slot_bytes=SLOT_BYTES, flops=100),
    RegionInfo("down.chain", "chain", "core", residual=True, slot_bytes=SLOT_BYTES, flops=30),
    RegionInfo("up.chain", "chain", "core", residual=True, slot_bytes=SLOT_BYTES, flops=40),
)
NAMES = ("w", "x", "t", "context")
SIGMAS = (700.0, 500.0, 300.0, 100.0, 8.0, 4.0, 1.0, 0.1)
# One tensor, as a module's own weights are: a denoiser is told by them.
WEIGHT = torch.ones(1)
Calls = list[tuple[int, list[Tensor]]]


def signature(regions: tuple[RegionInfo, ...] = REGIONS, level: int | None = 2) -> Signature:
    return Signature(
        names=NAMES,
        kinds=("weight", "input", "input", "input"),
        sample=1,
        level=level,
        conditioning=(3,),
        regions=regions,
        model="abc",
        geometry=GEOMETRY,
        weights_bytes=4,
    )


def chain_value(name: str, h: Tensor, args: Sequence[Tensor]) -> Tensor:
    w, _, t, context = args
    return torch.tanh(h * w + t.float().mean() * len(name) + context.mean())


def denoise(
    args: Sequence[Tensor], key: VariantKey, slots: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The output under these actions, and the value of every region that was computed."""
    actions, values = dict(key.actions), {}

    def kind(name: str) -> str:
        return actions.get(name, COMPUTE).kind

    h = args[1] * 2
    if kind("core") == "reuse":
        h = slots["core"]
    else:
        for name in ("down.chain", "up.chain"):
            if kind(name) == "bypass":
                continue
            value = slots[name] if kind(name) == "reuse" else chain_value(name, h, args)
            if kind(name) == "compute":
                values[name] = value
            h = h + value
        values["core"] = h
    return h - args[1], values


@dataclass
class FakeEngine:
    key: VariantKey
    fails: list[BaseException] = field(default_factory=list)
    calls: int = 0

    @property
    def reads(self) -> tuple[str, ...]:
        return self.key.reads

    @property
    def writes(self) -> tuple[str, ...]:
        return self.key.writes

    def __call__(
        self, args: Sequence[Tensor], prologue: Sequence[Tensor], slots_in: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        self.calls += 1
        if self.fails:
            raise self.fails.pop()
        slots = dict(zip(self.reads, slots_in, strict=True))
        if prologue:  # what depends on weights and conditioning alone is taken from it
            args = [prologue[0], *args[1:3], prologue[1]]
        output, values = denoise(args, self.key, slots)
        return [output], [values[name].clone() for name in self.writes]


class FakePrologue:
    """Copies of the weight and the conditioning, which exact variants use instead of them."""

    def __init__(self) -> None:
        self.fails: list[BaseException] = []
        self.calls = self.built = 0

    def build(self) -> FakePrologue:
        self.built += 1
        return self

    def __call__(self, args: Sequence[Tensor]) -> list[Tensor]:
        self.calls += 1
        if self.fails:
            raise self.fails.pop()
        return [args[0].clone(), args[3].clone()]


class Fakes:
    """Builds the engines, and remembers them."""

    def __init__(self) -> None:
        self.built: dict[VariantKey, FakeEngine] = {}
        self.prologue = FakePrologue()

    def __call__(self, key: VariantKey) -> Engine:
        assert key not in self.built
        self.built[key] = FakeEngine(key)
        return self.built[key]

    @property
    def calls(self) -> dict[str, int]:
        return {key.name: engine.calls for key, engine in self.built.items() if engine.calls}


def runner(plan: str | Plan = "balanced", **options) -> tuple[Runner, Fakes]:
    engines = Fakes()
    level = options.pop("level", 2)
    if options.pop("hoists", False):
        options["prologue"] = engines.prologue.build
    return Runner(signature(level=level), engines, plan=plan, **options), engines


def make_args(level: float = 1.0, seed: int = 0, context: float = 0.5) -> list[Tensor]:
    x = torch.randn(6, generator=torch.Generator().manual_seed(seed))
    return [WEIGHT, x, torch.full((6,), level), torch.full((2,), context)]


def plan_of(*rows, levels=None, streams=None, **fields) -> Plan:
    """A plan of the rows, each an object of texts: `{"core": "reuse"}`."""
    from turbo4d.runtime.action import Action

    def parsed(row):
        return None if row is None else {name: Action.parse(text) for name, text in row.items()}

    named = {"main": rows} if streams is None else streams
    steps = len(next(iter(named.values())))
    return Plan(
        **{
            "name": "p",
            "model": "abc",
            "geometry": GEOMETRY,
            "levels": tuple(levels or SIGMAS[:steps]),
            "level_unit": "sigma",
            "streams": {name: tuple(map(parsed, each)) for name, each in named.items()},
            "max_age": 4,
            "max_variants": 8,
            **fields,
        }
    )


CHAINS = {"down.chain": "reuse", "up.chain": "reuse"}
REUSE = {"core": "reuse"}
ROWS = ({}, REUSE, CHAINS, REUSE, {"up.chain": "bypass"})


def expected(plan: Plan | None, calls: Calls) -> list[Tensor]:
    """What the calls give, by the plan's rows alone: (step, args), every computed value kept."""
    assert plan is not None
    slots: dict[str, Tensor] = {}
    outputs: list[Tensor] = []
    for step, args in calls:
        row = plan.streams["main"][step] or {}
        output, values = denoise(args, VariantKey(tuple(row.items()), (), exact=True), slots)
        slots |= values
        outputs.append(output)
    return outputs


def calls_of(count: int, seed: int = 0) -> Calls:
    return [(step, make_args(SIGMAS[step], seed=seed + step)) for step in range(count)]


def run_all(run: Session, fast: Runner, calls: Calls, stream: str = "main") -> list[Tensor]:
    outputs: list[Tensor] = []
    for step, args in calls:
        run.step(step, stream=stream)
        outputs.append(fast(*args)[0])
    return outputs


def assert_equal(outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    assert len(outputs) == len(wanted)
    assert all(torch.equal(a, b) for a, b in zip(outputs, wanted, strict=True))
