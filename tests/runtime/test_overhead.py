"""What the runtime itself costs per step, beside engines that do nothing."""

import time
from statistics import median

import torch
from turbo4d.runtime.plan import VariantKey
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.signature import Signature

from tests.runtime.fake import GEOMETRY, REGIONS, plan_of
from turbo4d import session

WEIGHTS, STEPS = 1900, 40  # as many weights as SV4D has
# The target is 0.3 ms; ten times as much fails, so that a busy machine does not.
TARGET_S, BOUND_S = 0.3e-3, 3e-3


class EmptyEngine:
    def __init__(self, key: VariantKey) -> None:
        self.key, self.reads, self.writes = key, key.reads, key.writes
        self.slots = [torch.zeros(1) for _ in key.writes]

    def __call__(self, args, prologue, slots_in):
        return args[-1:], self.slots


def test_a_step_costs_little_beside_its_engine(capsys):
    signature = Signature(
        names=(*(f"w{n}" for n in range(WEIGHTS)), "x", "t", "context"),
        kinds=("weight",) * WEIGHTS + ("input",) * 3,
        sample=WEIGHTS,
        level=WEIGHTS + 1,
        conditioning=(WEIGHTS + 2,),
        regions=REGIONS,
        model="abc",
        geometry=GEOMETRY,
        weights_bytes=0,
    )
    levels = [float(STEPS - step) for step in range(STEPS)]
    plan = plan_of(*[{}, {"core": "reuse"}] * (STEPS // 2), levels=levels)
    values = tuple(torch.zeros(1) for _ in range(50))
    fast = Runner(signature, EmptyEngine, plan=plan, prologue=lambda: lambda args: values)
    args = [torch.zeros(1) for _ in range(WEIGHTS + 3)]
    spent_s = []
    for _ in range(3):
        with session(fast) as run:
            for step in range(STEPS):
                start = time.perf_counter()
                run.step(step)
                fast(*args)
                spent_s.append(time.perf_counter() - start)
    middle_s = median(spent_s)
    with capsys.disabled():
        print(f"\nruntime overhead: {middle_s * 1e6:.0f} us per step, {WEIGHTS} weights")
    assert run.report()["calls_by_variant"]["prologue"] == 1
    assert middle_s < BOUND_S
