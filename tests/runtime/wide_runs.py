"""Runs whose slots are large enough to weigh, and a stand-in for a device beside its host."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.slot_storage import decode, encode
from turbo4d.runtime.variant_key import VariantKey

from tests.runtime import fake
from tests.runtime.fake import CHAINS, REUSE, SIGMAS, Fakes, denoise, signature
from turbo4d import session

SIZE = 640
REGIONS = tuple(
    replace(region, slot_bytes=4 * SIZE, slot_forms=(((SIZE,), torch.float32),))
    for region in fake.REGIONS
)
BYPASS = {"up.chain": "bypass"}
# The chains wait for two steps between being written and being read.
WAITING = ({}, BYPASS, REUSE, {"up.chain": "reuse"}, {}, REUSE, CHAINS, REUSE)
TWICE = ({}, BYPASS, REUSE, REUSE, {"up.chain": "reuse"}, BYPASS, REUSE, {"up.chain": "reuse"})


class Spy:
    """Wraps an engine; notes the addresses of what it reads."""

    def __init__(self, inner, seen):
        self.inner, self.seen = inner, seen
        self.key, self.reads, self.writes = inner.key, inner.reads, inner.writes

    def __call__(self, args, prologue, slots_in):
        for name, slot in zip(self.reads, slots_in, strict=True):
            self.seen.setdefault(name, set()).add(slot.data_ptr())
        return self.inner(args, prologue, slots_in)


@dataclass
class Called:
    """An engine that does as it is told."""

    key: VariantKey
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    call: Callable[..., Any]

    def __call__(self, args, prologue, slots_in):
        return self.call(args, prologue, slots_in)


def wide_runner(plan, seen=None, **options):
    build = Fakes()
    engines = build if seen is None else lambda key: Spy(build(key), seen)
    return Runner(signature(REGIONS), engines, plan=plan, **options)


def calls_of(count):
    generator = torch.Generator().manual_seed(0)
    for step in range(count):
        x = torch.randn(SIZE, generator=generator)
        yield step, [fake.WEIGHT, x, torch.full((6,), SIGMAS[step]), torch.full((2,), 0.5)]


def run_all(fast, made, runs=1, **options):
    """The outputs of the last of several runs, and the report."""
    outputs = []
    with session(fast, **options) as run:
        for _ in range(runs):
            outputs = []
            for step, args in calls_of(made.steps):
                run.step(step)
                outputs.append(fast(*args)[0])
    assert run.report()["events"] == []
    return outputs, run.report()


def expected(plan):
    """What the plan's rows give where every slot goes through its storage."""
    slots, outputs = {}, []
    for step, args in calls_of(plan.steps):
        row = plan.streams["main"][step]
        output, values = denoise(args, VariantKey(tuple(row.items()), (), exact=True), slots)
        for name, value in values.items():
            slots[name] = decode(encode(value, plan.storage.get(name, "compute")))
        outputs.append(output)
    return outputs


class Copies:
    """Stands in for a device beside its host, on the CPU."""

    def __init__(self):
        self.moves = Counter()

    def to_host(self, tensor):
        self.moves["out"] += 1
        return tensor.clone()

    def to_device(self, held):
        self.moves["back"] += 1
        return Arrival([each.clone() for each in held])


class Arrival:
    def __init__(self, tensors):
        self.tensors = tensors

    def wait(self):
        return self.tensors
