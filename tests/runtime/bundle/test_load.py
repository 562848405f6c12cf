import re
from dataclasses import replace

import pytest
import torch
from torch import nn
from turbo4d.runtime.bundle import ladder
from turbo4d.runtime.bundle.bundle_files import Bundle
from turbo4d.runtime.bundle.manifest import MANIFEST, Target
from turbo4d.runtime.bundle.manifest_file import to_json
from turbo4d.runtime.bundle.weights import BundleWeights
from turbo4d.runtime.errors import BundleError, EngineError, PlanError, SessionError

from tests.runtime.bundle.handmade import PLAN, W, open_text, write_bundle
from tests.runtime.fake import (
    REUSE,
    ROWS,
    SIGMAS,
    assert_equal,
    calls_of,
    expected,
    plan_of,
    runner,
)
from turbo4d import load, session

pytestmark = pytest.mark.usefixtures("by_hand")


SMALL = 1e-3
"""In a session nobody reads the level, and a small one leaves the fake's tanh far from its ends."""


def wanted(count, plan=PLAN, scale=SMALL):
    """What the fake's own rows give, with the bundle's weight."""
    calls = [(step, [torch.tensor([W]), x, t * scale, c]) for step, (_, x, t, c) in calls_of(count)]
    return expected(plan, calls)


def run_steps(run, denoiser, count=5, stream="main"):
    outputs = []
    for step, (_, x, t, context) in calls_of(count):
        run.step(step, stream=stream)
        outputs.append(denoiser(x, t * SMALL, cond={"context": context, "mode": "plain"}))
    return outputs


def served(target, call) -> bool:
    """Whether a session on the target speaks for what is called within."""
    try:
        with session(target, steps=5) as run:
            run.step(0)
            call()
    except SessionError as error:
        return "no engine ran" not in str(error)
    return run.report()["engine_calls"] == 1


@pytest.mark.parametrize("hoists", [True, False])
@pytest.mark.parametrize("conditional", [True, False])
def test_a_run_gives_what_the_rows_say(tmp_path, conditional, hoists):
    plan = plan_of({}, REUSE, {"down.chain": "reuse", "up.chain": "reuse"}, REUSE, REUSE)
    write_bundle(tmp_path, plan, conditional=conditional, hoists=hoists)
    denoiser = load(tmp_path)
    with session(denoiser) as run:
        outputs = run_steps(run, denoiser)
    assert_equal(outputs, wanted(5, plan))
    report = run.report()
    assert report["events"] == []
    assert report["weights_bytes"] == 4
    assert report["calls_by_variant"].get("prologue", 0) == hoists
    assert report["calls_by_variant"]["core.reuse"] == 3


def test_positional_and_keyword_spelling_are_the_same_call(tmp_path):
    write_bundle(tmp_path)
    denoiser = load(tmp_path)
    _, x, t, context = calls_of(1)[0][1]
    cond = {"mode": "plain", "context": context}
    first = denoiser(x, t, cond)
    assert torch.equal(first, denoiser(cond=cond, scale=2, t=t, x=x))


def test_without_a_session_the_levels_tell_the_steps(tmp_path):
    write_bundle(tmp_path)
    denoiser = load(tmp_path)
    outputs = []
    for _ in range(2):
        outputs = []
        for _, (_, x, t, context) in calls_of(5):
            outputs.append(denoiser(x, t, {"context": context, "mode": "plain"}))
    assert_equal(outputs, wanted(5, scale=1.0))
    assert denoiser.report()["calls_by_variant"]["core.reuse"] >= 2


def test_a_session_speaks_for_its_own_bundle_alone(tmp_path):
    for name, weight in (("a", W), ("b", 2 * W)):
        write_bundle(tmp_path / name, weight=weight)
    one, other = load(tmp_path / "a"), load(tmp_path / "b")
    _, x, t, context = calls_of(1)[0][1]
    cond = {"context": context, "mode": "plain"}
    alone = other(x, t, cond)
    with session(one) as run:
        run.step(0)
        one(x, t, cond)
        assert torch.equal(other(x, t, cond), alone)  # not the session's: it said no second step
    assert run.report()["engine_calls"] == 1
    assert not served(one, lambda: other(x, t, cond))


def test_a_session_on_a_module_or_a_runner_does_not_take_a_bundle(tmp_path):
    write_bundle(tmp_path)
    denoiser = load(tmp_path)
    _, x, t, context = calls_of(1)[0][1]
    cond = {"context": context, "mode": "plain"}
    for target in (nn.Linear(1, 1), runner()[0]):
        assert not served(target, lambda: denoiser(x, t, cond))
    for target in (denoiser, denoiser.runner, lambda: denoiser(x, t, cond)):
        assert served(target, lambda: denoiser(x, t, cond))


def test_a_session_on_a_bundle_does_not_take_a_compiled_denoiser(tmp_path):
    write_bundle(tmp_path)
    denoiser, (fast, _) = load(tmp_path), runner(PLAN)
    _, x, t, context = calls_of(1)[0][1]
    with session(denoiser) as run:
        run.step(0)
        fast(*calls_of(1)[0][1])
        denoiser(x, t, {"context": context, "mode": "plain"})
    assert run.report()["engine_calls"] == 1


def test_another_plan_is_refused_unless_its_variants_are_there(tmp_path):
    write_bundle(tmp_path)
    denoiser = load(tmp_path)
    other = plan_of({}, {}, {"down.chain": "bypass"}, {}, {}, name="other")
    text = (
        "plan 'other' needs 1 variants that the bundle of plan 'p' does not hold, "
        "'down.chain.bypass' first; build a bundle for it."
    )
    with session(denoiser, plan=other) as run:
        with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
            run_steps(run, denoiser, 1)
    with session(denoiser, plan=plan_of({}, {}, {}, {}, {}, name="full")) as run:
        run_steps(run, denoiser)
    assert run.report()["calls_by_variant"] == {"compute": 5, "prologue": 1}


def test_an_adaptive_run_wants_engines_that_no_bundle_holds(tmp_path):
    write_bundle(tmp_path)
    denoiser = load(tmp_path)
    text = (
        rf"^{re.escape(str(tmp_path))}: variant '.+' is not in the bundle, which was built for "
        r"plan 'p'; leave adaptive off, or build one for a plan that has it\.$"
    )
    with session(denoiser, adaptive=True) as run:
        run.step(0)
        with pytest.raises(BundleError, match=text):
            run_steps(run, denoiser, 1)


def test_a_step_left_out_is_computed_in_full_by_an_engine_of_the_bundle(tmp_path):
    write_bundle(tmp_path)
    denoiser = load(tmp_path)
    with session(denoiser) as run:
        run.step(1)
        _, x, t, context = calls_of(2)[1][1]
        denoiser(x, t, {"context": context, "mode": "plain"})
    (event,) = run.report()["events"]
    assert event["kind"] == "full-variant"


def test_a_bundle_for_a_gpu_runs_on_its_graphs_and_says_so(tmp_path):
    write_bundle(tmp_path, target=Target("tensorrt-rtx", "sm89", executed=False))
    denoiser = load(tmp_path)
    with session(denoiser) as run:
        outputs = run_steps(run, denoiser)
    assert_equal(outputs, wanted(5))
    (event,) = run.report()["events"]
    assert event["kind"] == "engine-fallback"
    assert event["message"] == (
        "engines built for tensorrt-rtx on sm89 run by ONNX Runtime on cpu: TensorRT-RTX on cpu: "
        "it runs on a GPU, not on cpu; TensorRT-RTX rebuilt on cpu: it runs on a GPU, not on cpu."
    )
    assert denoiser.report()["events"] == [event]


def test_strict_wants_the_engines_as_they_were_built(tmp_path):
    write_bundle(tmp_path, target=Target("onnxruntime", "cuda", executed=False))
    text = (
        f"{tmp_path}: engine 'v0' runs nowhere here; ONNX Runtime as built on cpu: it was built "
        "for cuda, not for cpu."
    )
    with pytest.raises(BundleError, match=f"^{re.escape(text)}$"):
        load(tmp_path, strict=True)
    assert "here on cpu" in repr(load(tmp_path))


def test_every_rung_that_broke_is_named(tmp_path, monkeypatch):
    def broken(bundle, row, weights):
        raise EngineError("it has no kernel for Foo.")

    monkeypatch.setitem(ladder.OPENERS, "onnxruntime", broken)
    write_bundle(tmp_path)
    with pytest.raises(BundleError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: engine 'v0' runs nowhere here; ONNX Runtime as built on cpu: it has no "
        "kernel for Foo; ONNX Runtime on cpu: it has no kernel for Foo."
    )


def test_native_code_wants_leave(tmp_path):
    write_bundle(tmp_path, target=Target("aot-inductor", "cpu", executed=True))
    (event,) = load(tmp_path).report()["events"]
    assert "AOTInductor on cpu: no engine was built" in str(event["message"])


def test_an_unknown_target_or_device_is_refused(tmp_path):
    write_bundle(tmp_path, target=Target("npu", "cpu", executed=True))
    with pytest.raises(BundleError, match=r"target 'npu' is unknown; this turbo4d opens aot-ind"):
        load(tmp_path)
    write_bundle(tmp_path)
    with pytest.raises(BundleError, match=r"^device 'tpu' is unknown; wanted 'auto', 'cpu'"):
        load(tmp_path, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(BundleError, match=r"^device 'cuda' is not here; torch sees 0 GPUs"):
            load(tmp_path, device="cuda")


def test_a_bundle_that_lacks_what_its_plan_can_need_is_refused(tmp_path):
    manifest = write_bundle(tmp_path)
    rescue = next(row for row in manifest.variants if row.key.name == "compute")
    left = replace(
        manifest,
        variants=tuple(row for row in manifest.variants if row is not rescue),
        engines=tuple(row for row in manifest.engines if row.name != rescue.engine),
    )
    (tmp_path / MANIFEST).write_text(to_json(left))
    text = (
        f"{tmp_path / manifest.plan}: the plan can need variant 'compute', which the bundle does "
        "not hold; build it anew."
    )
    with pytest.raises(BundleError, match=f"^{re.escape(text)}$"):
        load(tmp_path)


def test_a_plan_of_another_model_is_refused(tmp_path):
    manifest = write_bundle(tmp_path, plan_of(*ROWS, model="other"))
    text = rf"^{re.escape(str(tmp_path / manifest.plan))}: plan 'p' is for model 'other'; this one"
    with pytest.raises(BundleError, match=text):
        load(tmp_path)


def test_engines_that_were_built_with_another_version_are_not_opened(tmp_path, monkeypatch):
    """As on a machine with a GPU; the versions are compared before the vendor sees the file."""
    target = Target("tensorrt-rtx", "sm89", executed=False)
    manifest = write_bundle(tmp_path, target=target)
    rows = [replace(row, engine=row.graph) for row in manifest.engines]
    made_with = {"tensorrt_rtx": "0.0.1"}
    bundle = Bundle(tmp_path, replace(manifest, engines=tuple(rows), made_with=made_with), "cuda")
    monkeypatch.setattr(ladder, "version", lambda name: {"tensorrt-rtx": "1.7"}[name])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    rung = ladder.RUNGS["tensorrt-rtx"][0]
    text = "it was built with tensorrt-rtx 0.0.1; here is 1.7"
    assert ladder._against(rung, bundle, rows[-1]) == text
    monkeypatch.setattr(ladder, "version", lambda name: "0.0.1")
    assert ladder._against(rung, bundle, rows[-1]) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    text = "it was built for sm89, and this GPU is sm90"
    assert ladder._against(rung, bundle, rows[-1]) == text


def test_native_code_is_not_opened_without_leave(tmp_path):
    target = Target("aot-inductor", "cpu", executed=True)
    manifest = write_bundle(tmp_path, target=target)
    row = replace(manifest.engines[-1], engine=manifest.engines[-1].graph)
    rung = ladder.RUNGS["aot-inductor"][0]
    text = "its file holds native code; load it with allow_native=True where you trust it"
    assert ladder._against(rung, Bundle(tmp_path, manifest), row) == text
    assert ladder._against(rung, Bundle(tmp_path, manifest, allow_native=True), row) is None


def test_where_the_gpu_takes_no_engine_all_run_on_the_cpu(tmp_path, monkeypatch):
    def on_cpu(bundle, row, weights):
        if bundle.device != "cpu":
            raise EngineError("no provider for it.")
        return open_text(bundle, row, weights)

    manifest = write_bundle(tmp_path, target=Target("onnxruntime", "cuda", executed=False))
    monkeypatch.setitem(ladder.OPENERS, "onnxruntime", on_cpu)
    bundle = Bundle(tmp_path, manifest)
    opener = ladder.Ladder(bundle, BundleWeights(bundle), ["cuda", "cpu"], strict=False)
    for row in manifest.engines:
        opener.open(row)
    assert opener.device == "cpu"
    assert [note.message for note in opener.notes] == [
        "engines built for onnxruntime on cuda run by ONNX Runtime on cpu: ONNX Runtime as built "
        "on cuda: no provider for it; ONNX Runtime on cuda: no provider for it; ONNX Runtime as "
        "built on cpu: it was built for cuda, not for cpu."
    ]


def test_a_bundle_says_what_it_is(tmp_path):
    write_bundle(tmp_path)
    denoiser = load(tmp_path)
    assert denoiser.plan.name == "p"
    assert denoiser.manifest.model == "fake"
    assert repr(denoiser) == (
        f"BundleDenoiser({str(tmp_path)!r}, model 'fake', plan 'p', target onnxruntime on cpu, "
        f"{len(denoiser.manifest.variants)} variants, here on cpu)"
    )
    assert SIGMAS[:5] == denoiser.plan.levels
