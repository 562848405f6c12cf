"""Weights found step by step: what they must reach, and that a session carries them out."""

import dataclasses

import pytest
import torch
from turbo4d.compiler.calibrate.fit import fitted
from turbo4d.compiler.calibrate.harness import Harness
from turbo4d.compiler.calibrate.residual import residual
from turbo4d.runtime.action import REUSE, Action

from tests.compiler.calibrate.tiny import example, learned, network, sampler, two_streams

STEP = {"step": REUSE}
DEEP = {"step": Action("reuse", order=1)}


def records(harness, examples):
    return [harness.record(each, (), lambda at, values: None) for each in examples]


def plan_of(harness, *rows):
    return harness.plan("p", {"main": rows}, max_age=9, max_variants=9)


def off(harness, given, plan):
    exact = harness.record(given, (), lambda at, values: None).sample
    return float((harness.sample(given, plan) - exact).norm())


@pytest.mark.parametrize("rows", [({}, STEP, STEP, {}, STEP), ({}, {}, DEEP, DEEP, DEEP)])
def test_weights_come_nearer_than_reusing_what_the_step_gave(rows):
    harness, given = learned()
    plan = plan_of(harness, *rows)
    found = fitted(harness, [given], plan, records(harness, [given]))
    assert off(harness, given, found) < 0.9 * off(harness, given, plan)


def test_one_fitted_step_is_the_least_squares_solution():
    harness, given = learned()
    [exact] = records(harness, [given])
    plan = fitted(harness, [given], plan_of(harness, {}, STEP, {}, {}, {}), [exact])
    action = (plan.streams["main"][1] or {})["step"]
    # The next input is x + 0.5 d, so its nearest d is the nearest to what the network gives.
    first, aim = (exact.outputs["main", step][0].flatten() for step in (0, 1))
    sample = harness.sample_in(exact.inputs["main", 1]).flatten()
    columns = torch.stack([first, sample], dim=1).double()
    best = torch.linalg.lstsq(columns, aim.double()[:, None]).solution.flatten()
    assert [*action.mix, action.sample] == pytest.approx(best.tolist(), rel=1e-3)


def test_a_later_fitted_step_takes_back_what_an_earlier_one_erred():
    harness, given = learned()
    [exact] = records(harness, [given])
    plan = plan_of(harness, {}, STEP, STEP, {}, {})
    found = fitted(harness, [given], plan, [exact])
    fit = (found.streams["main"][1] or {})["step"]
    # A neighbour of the weights found is no better at the step that they aim at.
    moved = [*found.streams["main"]]
    moved[1] = {"step": dataclasses.replace(fit, sample=fit.sample + 0.05)}
    neighbour = dataclasses.replace(found, streams={"main": tuple(moved)})
    assert off(harness, given, found) < off(harness, given, neighbour)


def test_a_plan_without_reuse_of_the_whole_step_stays_as_it_is():
    harness, given = learned()
    plan = plan_of(harness, {}, {"core": REUSE}, {}, {}, {})
    assert fitted(harness, [given], plan, records(harness, [given])) is plan


def test_streams_are_fitted_apart():
    torch._dynamo.reset()
    given = example(1)
    harness = Harness(network(), two_streams)
    harness.learn(given)
    rows = {"cond": ({}, STEP, {}, STEP, STEP), "uncond": ({}, None, STEP, None, STEP)}
    plan = harness.plan("p", rows, max_age=9, max_variants=9)
    found = fitted(harness, [given], plan, records(harness, [given]))
    assert off(harness, given, found) < off(harness, given, plan)
    assert found.streams["uncond"][1] is None


def test_no_call_of_the_network_is_spent_on_a_fitted_step(monkeypatch):
    harness, given = learned()
    recorded = records(harness, [given])
    calls = []
    following = harness.following

    def counted(plan):
        inner = following(plan)

        def call(stream, step, args):
            calls.append(step)
            return inner(stream, step, args)

        return call

    monkeypatch.setattr(harness, "following", counted)
    fitted(harness, [given], plan_of(harness, {}, STEP, {}, STEP, STEP), recorded)
    assert calls == [0, 2]


def test_a_session_and_the_calibration_carry_out_the_same_weights():
    harness, given = learned()
    plan = plan_of(harness, {}, STEP, {}, DEEP, DEEP)
    found = fitted(harness, [given], plan, records(harness, [given]))
    torch.testing.assert_close(
        harness.sample(given, found), harness.follow(given, found), rtol=0, atol=0
    )


def test_a_residual_is_that_of_the_best_weighted_sum():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    rows = torch.cat([rows, (0.3 * rows[0] - 2 * rows[1])[None]])
    products = (rows @ rows.T).tolist()
    assert residual(products, [0, 1], 3) == pytest.approx(0, abs=1e-5)
    alone = torch.linalg.lstsq(rows[:1].T, rows[3][:, None])
    left = rows[3] - (rows[:1].T @ alone.solution).flatten()
    assert residual(products, [0], 3) == pytest.approx(
        float(left.norm() / rows[3].norm()), rel=1e-4
    )


def test_the_sampler_is_not_told_of_weights():
    harness, given = learned()
    assert (
        harness.sample(given, plan_of(harness, {}, {}, {}, {}, {})).shape
        == sampler(network(), given).shape
    )
