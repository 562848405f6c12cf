"""Plans that extrapolate, carried out: what is read, what is held, and what is done without."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from turbo4d.runtime.errors import PlanError, SessionError
from turbo4d.runtime.extrapolation import predict, weights
from turbo4d.runtime.plan import Plan, VariantKey
from turbo4d.runtime.plan_check import PlanCheck
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.signature import Signature

from tests.runtime.fake import (
    GEOMETRY,
    REGIONS,
    REUSE,
    SLOT_BYTES,
    make_args,
    plan_of,
    runner,
    signature,
)
from tests.runtime.random_plans import TREE, holders, legal_rows
from turbo4d import session

# How the slot of a region is divided among the tensors of its cut, in numbers of 8 bytes.
PORTS = {"core": (70, 50, 5), "a.chain": (6, 4)}
SIZES = {region.name: PORTS.get(region.name, (region.slot_bytes,)) for region in TREE}
BYTES = {name: 8 * sum(ports) for name, ports in SIZES.items()}


class Engine:
    """Gives random slots, and notes what it is given."""

    def __init__(self, key: VariantKey, seen):
        self.key, self.seen = key, seen
        self.reads = tuple(name for name in key.reads for _ in SIZES[name])
        self.writes = tuple(name for name in key.writes for _ in SIZES[name])

    def __call__(self, args, prologue, slots_in):
        sizes = [size for name in self.key.writes for size in SIZES[name]]
        written = [torch.randn(size, dtype=torch.float64) for size in sizes]
        # Copies: with poison what is let go is overwritten.
        self.seen.append(([t.clone() for t in slots_in], [t.clone() for t in written]))
        return [args[1]], written


def carry_out(plan: Plan, engines: list[VariantKey]):
    seen = []
    regions = tuple(
        type(r)(r.name, r.kind, r.parent, r.residual, BYTES[r.name], r.flops) for r in TREE
    )

    def build(key: VariantKey):
        engines.append(key)
        return Engine(key, seen)

    wide = Signature(**{**vars(signature()), "regions": regions, "level": None})
    fast = Runner(wide, build, plan=plan)
    with session(fast) as run:
        for step in range(plan.steps):
            run.step(step)
            fast(*make_args())
    return run.report(), seen, plan.check(regions)


@given(st.data(), st.integers(0, 6))
def test_any_legal_plan_reads_what_plain_python_extrapolates(data, max_age):
    rows = data.draw(legal_rows(max_age, max_order=3, prune=False))
    sigmas = data.draw(st.lists(st.integers(1, 999), min_size=12, max_size=12, unique=True))
    levels = tuple(sigma / 7 for sigma in sorted(sigmas, reverse=True)[: len(rows)])
    plan = Plan("p", "abc", GEOMETRY, levels, "sigma", {"main": tuple(rows)}, max_age, 99)
    engines: list[VariantKey] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TURBO4D_POISON", "1")
        report, seen, proof = carry_out(plan, engines)

    history: dict[str, list[tuple[float, list[Tensor]]]] = {name: [] for name in SIZES}
    assert len(seen) == len(rows)
    for step, (read, written) in enumerate(seen):
        orders = {name: action.order for name, action in rows[step].items() if action.reads}
        wanted: list[Tensor] = []
        for name, order in sorted(orders.items()):
            past = history[name][-order - 1 :]
            mix = weights(tuple(math.log(at) for at, _ in past), math.log(levels[step]))
            ports = zip(*(value for _, value in past), strict=True)
            wanted += [predict(port, mix) for port in ports]
        assert len(read) == len(wanted)
        assert all(torch.equal(a, b) for a, b in zip(read, wanted, strict=True))
        left = iter(written)
        for name in engine_writes(proof, step):
            assert not {name, *holders(name)} & {*rows[step]}
            history[name].append((levels[step], [next(left) for _ in SIZES[name]]))
    assert report["cache_peak_bytes"] == proof.peak_bytes
    assert report["events"] == []
    assert all(action.order == 0 for key in engines for _, action in key.actions)


def engine_writes(proof: PlanCheck, step: int) -> tuple[str, ...]:
    key = proof.keys["main"][step]
    assert key is not None
    return key.writes


def test_the_orders_of_a_region_share_one_engine():
    rows = [{}, {}, {}, *({"core": text} for text in ("reuse", "reuse(1)", "reuse(2)"))]
    plan = plan_of(*rows, max_age=3)
    fast, engines = runner(plan)
    with session(fast) as run:
        for step in range(6):
            run.step(step)
            fast(*make_args())
    assert engines.calls == {"compute+core.w": 3, "core.reuse": 3}
    proof = plan.check(REGIONS)
    assert run.report()["variants"] == len(proof.variants) == 2
    assert run.report()["cache_peak_bytes"] == proof.peak_bytes == 3 * SLOT_BYTES
    assert proof.depth == {"core": 3}
    assert proof.orders["main"] == ({}, {}, {}, {}, {"core": 1}, {"core": 2})
    assert [dict(live) for live in proof.live["main"]] == [
        {"core": 1}, {"core": 2}, {"core": 3}, {"core": 3}, {"core": 3}, {},
    ]  # fmt: skip


class Polynomial:
    """Its core is a polynomial of ln(sigma), which is what its sample holds."""

    def __init__(self, key: VariantKey, terms: Tensor):
        self.key, self.reads, self.writes = key, key.reads, key.writes
        self.terms = terms

    def __call__(self, args, prologue, slots_in):
        powers = args[1][0] ** torch.arange(len(self.terms), dtype=torch.float64)
        core = slots_in[0] if slots_in else self.terms @ powers[:, None]
        return [core.clone()], [core.clone() for _ in self.writes]


@pytest.mark.parametrize(("unit", "place"), [("sigma", 1.0), ("c_noise", 0.25)])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_polynomial_of_ln_sigma_is_met_to_rounding(order, unit, place):
    logs = [6.5, 4.0, 2.5, 2.0, 0.5, -1.0, -1.5]
    levels = [math.exp(u) if unit == "sigma" else place * u for u in logs]
    rows = [{}, {}, {}, *[{"core": f"reuse({order})"}] * 2, {}, {"core": f"reuse({order})"}]
    plan = plan_of(*rows, levels=levels, level_unit=unit)
    for degree in range(4):
        terms = torch.tensor([3.0, -1.0, 0.5, 0.25][: degree + 1], dtype=torch.float64)
        fast = Runner(signature(), lambda key, terms=terms: Polynomial(key, terms), plan=plan)
        errors = []
        with session(fast) as run:
            for step, u in enumerate(logs):
                run.step(step)
                w, _, *rest = make_args()
                (output,) = fast(w, torch.full((6,), u, dtype=torch.float64), *rest)
                wanted = sum(float(term) * u**n for n, term in enumerate(terms))
                errors.append(abs(float(output[0]) - wanted))
        exact = max(errors) < 1e-12 * 7**degree
        assert exact == (degree <= order)


def without_enough(strict=False):
    """A run whose conditioning changes before the second of the values that step 3 needs."""
    plan = plan_of({}, {}, {"core": "reuse(1)"}, {"core": "reuse(1)"}, {}, {"core": "reuse(1)"})
    fast, _ = runner(plan, strict=strict)
    values = []
    with session(fast) as run:
        for step in range(6):
            run.step(step)
            if step == 1:
                run.new_conditioning()
            values.append(fast(*make_args(0.1 * step))[0])  # small: the fake's tanh saturates
    return run.report(), values


def test_a_slot_without_enough_values_is_extrapolated_by_fewer():
    report, values = without_enough()
    told = [(event["kind"], event["step"]) for event in report["events"]]
    assert told == [("lower-order", 2), ("lower-order", 3)]
    assert report["events"][0]["message"] == (
        "slot 'core' holds 1 of the 2 values that reuse(1) extrapolates at step 2 of stream "
        "'main'; order 0 was used."
    )
    assert torch.equal(values[2], values[1])
    assert torch.equal(values[3], values[1])
    # The fake's output is its core less its sample, which is the same at all steps.
    x = make_args()[1]
    now, *places = (math.log(sigma) for sigma in (4.0, 500.0, 8.0))
    core = predict([values[1] + x, values[4] + x], weights(tuple(places), now))
    torch.testing.assert_close(values[5], core - x, atol=1e-5, rtol=0)
    assert not torch.allclose(values[5], values[4], atol=1e-3)


def test_strict_makes_a_lower_order_an_error():
    text = (
        "slot 'core' holds 1 of the 2 values that reuse(1) extrapolates at step 2 of stream "
        "'main'; run the steps before it, or leave strict off."
    )
    with pytest.raises(SessionError, match=f"^{re.escape(text)}$"):
        without_enough(strict=True)


def test_what_computed_everything_in_need_counts_as_a_value():
    """Step 2 finds nothing and computes; step 3 has one value more, so it can extrapolate."""
    plan = plan_of({}, {}, REUSE, {"core": "reuse(1)"})
    fast, engines = runner(plan)
    with session(fast) as run:
        for step in range(4):
            run.step(step)
            if step in (1, 2):
                run.new_conditioning()
            fast(*make_args(seed=step))
    assert [(e["kind"], e["step"]) for e in run.report()["events"]] == [
        ("full-variant", 2),
        ("lower-order", 3),
    ]
    assert engines.calls["core.reuse"] == 1


def test_a_new_run_extrapolates_nothing_of_the_last():
    plan = plan_of({}, {}, {"core": "reuse(1)"})
    fast, _ = runner(plan)
    outputs = []
    with session(fast) as run:
        for seed in (0, 0, 50):
            for step in range(3):
                run.step(step)
                outputs.append(fast(*make_args(seed=seed + step))[0])
    assert all(torch.equal(a, b) for a, b in zip(outputs[:3], outputs[3:6], strict=True))
    assert not torch.equal(outputs[8], outputs[5])
    assert run.report()["events"] == []


def test_without_a_session_the_levels_tell_what_to_extrapolate():
    plan = plan_of({}, {}, {"core": "reuse(1)"}, {})
    fast, engines = runner(plan)
    with session(fast) as run:
        wanted = []
        for step, sigma in enumerate(plan.levels):
            run.step(step)
            wanted.append(fast(*make_args(sigma, seed=step))[0])
    outputs = [fast(*make_args(sigma, seed=step))[0] for step, sigma in enumerate(plan.levels)]
    assert all(torch.equal(a, b) for a, b in zip(outputs, wanted, strict=True))
    assert engines.calls["core.reuse"] == 2


def test_levels_that_are_one_in_sigma_are_refused():
    plan = plan_of({}, {}, {"core": "reuse(1)"}, levels=[1000.0, 999.0, 5.0], level_unit="timestep")
    text = (
        "plan 'p', stream 'main', step 2, region 'core': reuse(1) extrapolates over the levels of "
        "steps 0 and 1, 1000 and 999, which are one in sigma; reuse it with order 0."
    )
    with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
        plan.check(REGIONS)
