"""Whatever a legal plan is, a run holds what the proof says and hands over what was written."""

from collections import Counter
from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.signature import Signature

from tests.runtime.fake import GEOMETRY, make_args, signature
from tests.runtime.random_plans import SLOTS, TREE, legal_rows
from turbo4d import session

# How the slot of a region is divided among the tensors of its cut.
PORTS = {"core": (700, 299, 1), "a.chain": (60, 40), "lone.chain": (1,)}
SIZES = {name: PORTS.get(name, (size,)) for name, size in SLOTS.items()}
STREAMS = ("cond", "uncond")
# Of each number the slots hold three bytes.
WIDE = tuple(
    replace(region, slot_bytes=3 * region.slot_bytes, relevance_bytes=3 * region.relevance_bytes)
    for region in TREE
)


def per_tensor(names):
    return tuple(name for name in names for _ in SIZES[name])


class Engine:
    """Its slots tell step, stream and port; it notes what it is given."""

    def __init__(self, key, seen):
        self.key, self.seen = key, seen
        self.reads, self.writes = per_tensor(key.reads), per_tensor(key.writes)

    def __call__(self, args, prologue, slots_in):
        step, stream = int(args[2][0]), int(args[3][0])
        told = [(name, *slot[-1].tolist()) for name, slot in zip(self.reads, slots_in, strict=True)]
        addresses = [slot.data_ptr() for slot in slots_in]
        written = [
            torch.tensor([[step, stream, port]], dtype=torch.uint8).expand(size, 3).clone()
            for name in self.key.writes
            for port, size in enumerate(SIZES[name])
        ]
        self.seen.append((step, stream, prologue, told, addresses, written))
        return [args[1]], written


class Prologue:
    def __call__(self, args):
        return (args[3] * 3, torch.ones(5))


@st.composite
def interleavings(draw, steps: int):
    """Which stream comes next, each `steps` times."""
    return draw(st.permutations([name for name in STREAMS for _ in range(steps)]))


@given(st.data(), st.integers(0, 4), st.booleans())
def test_any_legal_plan_holds_what_its_proof_says(data, max_age, exact):
    one, other = data.draw(legal_rows(max_age)), data.draw(legal_rows(max_age))
    steps = min(len(one), len(other))
    plan = Plan(
        "p", "abc", GEOMETRY, tuple(float(steps - n) for n in range(steps)), "sigma",
        {"cond": tuple(one[:steps]), "uncond": tuple(other[:steps])}, max_age,
        max_variants=99, exact=exact,
    )  # fmt: skip
    # A slot of n bytes has n rows of (step, stream, port) here.
    wide = Signature(**{**vars(signature()), "regions": WIDE, "level": None})
    seen = []
    fast = Runner(wide, lambda key: Engine(key, seen), plan=plan, prologue=Prologue)
    order = data.draw(interleavings(steps))
    proof = plan.check(WIDE)
    with session(fast) as run:
        at = Counter()
        for stream in order:
            run.step(at[stream], stream=stream)
            w, x, _, context = make_args()
            number = STREAMS.index(stream)
            fast(w, x, torch.full((6,), at[stream]), torch.full_like(context, number))
            at[stream] += 1
    report = run.report()

    last = {}  # (stream, region) -> step and tensors
    for step, number, prologue, told, addresses, written in seen:
        stream = STREAMS[number]
        key = proof.keys[stream][step]
        assert key is not None
        wanted = [(stream, name, port) for name in key.reads for port in range(len(SIZES[name]))]
        assert told == [(name, last[s, name][0], number, port) for s, name, port in wanted]
        # Nothing is copied on the way from the engine that wrote to the one that reads.
        assert addresses == [last[s, name][1][port].data_ptr() for s, name, port in wanted]
        if exact:
            assert [float(value[0]) for value in prologue] == [3.0 * number, 1.0]
        else:
            assert prologue == ()
        left = iter(written)
        for name in key.writes:
            last[stream, name] = step, [next(left) for _ in SIZES[name]]
    calls = dict(report["calls_by_variant"])
    assert calls.pop("prologue", 0) == (len(STREAMS) if exact else 0)
    assert sum(calls.values()) == report["engine_calls"] == 2 * steps
    assert report["prologue_bytes"] == (2 * (8 + 20) if exact else 0)
    assert report["events"] == []
    # The proof bounds every interleaving, and each stream alone meets it.
    assert report["cache_peak_bytes"] <= proof.peak_bytes


@given(st.data(), st.integers(0, 4))
def test_one_stream_holds_exactly_what_its_proof_says(data, max_age):
    rows = data.draw(legal_rows(max_age))
    levels = tuple(float(len(rows) - n) for n in range(len(rows)))
    plan = Plan(
        "p", "abc", GEOMETRY, levels, "sigma", {"main": tuple(rows)}, max_age, max_variants=99
    )
    wide = Signature(**{**vars(signature()), "regions": WIDE, "level": None})
    fast = Runner(wide, lambda key: Engine(key, []), plan=plan, prologue=Prologue)
    with session(fast) as run:
        for step in range(plan.steps):
            run.step(step)
            w, x, _, context = make_args()
            fast(w, x, torch.full((6,), step), context)
    assert run.report()["cache_peak_bytes"] == plan.check(WIDE).peak_bytes
