"""Reuse by weights of the plan: how an action is spelled, what is mixed, what is refused."""

import dataclasses

import pytest
import torch
from turbo4d.runtime.action import REUSE, Action
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.extrapolation import weighted
from turbo4d.runtime.fitted import channels_like
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.region_info import RegionInfo
from turbo4d.runtime.variant_key import VariantKey

from tests.runtime.fake import calls_of, plan_of, run_all, runner
from turbo4d import session

FIT = Action("reuse", mix=(-0.25, 1.5), sample=0.125)
FIT_TEXT = str(FIT)
INFOS = (
    RegionInfo("step", "step", None, residual=False, slot_bytes=8, flops=10),
    RegionInfo("core", "core", "step", residual=False, slot_bytes=8, flops=8),
)


def test_an_action_is_written_and_read_back():
    for action in (FIT, Action("reuse", mix=(1e-09,)), Action("reuse", mix=(-3e20, 2.0, 0.1))):
        assert Action.parse(str(action)) == action
    assert str(FIT) == "reuse(mix=-0.25,1.5;sample=0.125)"
    assert FIT.order == 1


@pytest.mark.parametrize(
    "text",
    ["reuse(mix=)", "reuse(mix=1,)", "reuse(sample=1)", "reuse(mix=1..2)", "reuse(mix=nan)"],
)
def test_a_text_that_is_no_action_is_refused(text):
    with pytest.raises(PlanError, match="action"):
        Action.parse(text)


def test_weights_belong_to_reuse_and_are_finite():
    for fields in ({"kind": "bypass", "mix": (1.0,)}, {"kind": "reuse", "sample": 1.0}):
        with pytest.raises(PlanError, match="only reuse has weights"):
            Action(**fields)
    with pytest.raises(PlanError, match="not all finite"):
        Action("reuse", mix=(float("inf"),))
    with pytest.raises(PlanError, match="one for each value"):
        Action("reuse", order=2, mix=(1.0, 2.0))


def test_all_weights_share_one_graph():
    keys = {VariantKey((("step", action),), (), True) for action in (FIT, REUSE)}
    assert len(keys) == 1


def test_a_sum_may_have_any_weights():
    values = [torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])]
    assert weighted(values, (0.5, -1.0)).tolist() == [-9.5, -19.0]
    assert weighted(values[:1], (2.0,)).tolist() == [2.0, 4.0]
    half = [value.half() for value in values]
    assert weighted(half, (0.5, -1.0)).dtype == torch.float16


def test_the_sample_may_carry_conditioning_in_further_channels():
    sample = torch.arange(2 * 8 * 3).reshape(2, 8, 3)
    output = torch.zeros(2, 4, 3)
    for constant, part in (
        ([], sample[:, :4]),
        ([(0, 4)], sample[:, 4:]),
        ([(0, 2), (6, 8)], sample[:, 2:6]),
    ):
        found = channels_like(sample, output, constant)
        assert found is not None
        assert torch.equal(found, part)
    assert channels_like(output, output) is output
    for other in (torch.zeros(3, 4, 3), torch.zeros(2, 9, 3), torch.zeros(2, 4, 4)):
        assert channels_like(sample, other) is None


def test_a_plan_with_weights_proves_its_reads():
    plan = plan_of({}, {}, {"step": FIT_TEXT}, {"step": FIT_TEXT})
    check = plan.check(INFOS)
    assert check.peak_bytes == 16
    assert check.fits["main"][2] == {"step": FIT}
    assert check.slots == ("step",)
    assert Plan.from_json(plan.to_json()) == plan
    with pytest.raises(PlanError, match=r"step 1, region 'step'.*compute the region 2 times"):
        plan_of({}, {"step": FIT_TEXT}, {}).check(INFOS)


def test_no_region_within_the_network_takes_the_sample():
    with pytest.raises(PlanError, match=r"step 2, region 'core'.*only the whole step"):
        plan_of({}, {}, {"core": FIT_TEXT}).check(INFOS)
    plan_of({}, {}, {"core": "reuse(mix=0.1,0.9)"}).check(INFOS)


def test_what_the_step_holds_is_not_executed_with_it():
    with pytest.raises(PlanError, match="inside 'step'"):
        plan_of({}, {}, {"step": FIT_TEXT, "core": "reuse"}).check(INFOS)
    # Reusing the step leaves the core's slot as old as it was.
    plan = plan_of({}, {}, {"step": FIT_TEXT}, {"core": "reuse"})
    plan.check(INFOS)
    with pytest.raises(PlanError, match=r"step 3, region 'core'.*2 steps old"):
        dataclasses.replace(plan, max_age=1).check(INFOS)


def test_an_adaptive_run_refuses_weights():
    plan = plan_of({}, {}, {"core": "reuse(mix=0.5,0.5)"})
    fast, _ = runner(plan)
    with (
        session(fast, adaptive=True) as run,
        pytest.raises(PlanError, match=r"step 2: core is reused by weights .* adaptive off"),
    ):
        run_all(run, fast, calls_of(3))


def test_a_run_mixes_what_its_slots_hold():
    plan = plan_of({}, {}, {"core": "reuse(mix=0.5,-2.0)"})
    fast, _ = runner(plan)
    calls = calls_of(3)
    with session(fast) as run:
        outputs = run_all(run, fast, calls)
    # The fake's output is its core less its sample.
    first, second, third = (args[1] for _, args in calls)
    core = 0.5 * (outputs[0] + first) - 2.0 * (outputs[1] + second)
    torch.testing.assert_close(outputs[2], core - third)


def test_a_slot_that_holds_too_few_values_is_computed_aloud():
    plan = plan_of({}, {}, {"core": "reuse(mix=0.5,0.5)"})
    fast, _ = runner(plan)
    first, _, third = calls_of(3)
    with session(fast) as run:
        run_all(run, fast, [first, third])
    assert [event["kind"] for event in run.report()["events"]] == ["full-variant"]
