"""Plans that prune give what plain Python gives: through the front door, and graph by graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.runtime.action import REUSE, Action
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.plan import Plan

import turbo4d
from tests.compiler.captures import Chain, build
from tests.compiler.pruned_scm import PlainSCM

Rows = Sequence[Mapping[str, Action]]
SIGMAS = (8.0, 4.0, 2.0, 1.0, 0.5)
KINDS = ("spatial", "camera", "motion")
PREFIX = "stack.0"


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@cache
def network(dtype: torch.dtype) -> tuple[Chain, dict[str, Any], Analysis]:
    module, call = build("chain", dtype)
    assert isinstance(module, Chain)
    return module, call, analyse(capture_export(module, (), call))


@cache
def compiled(dtype: torch.dtype) -> Any:
    """Compiled once: each session brings its plan, and engines are shared."""
    torch._dynamo.reset()
    return torch.compile(network(dtype)[0], backend="turbo4d", fullgraph=True)


def prune(keep: float, *kinds: str) -> dict[str, Action]:
    return {f"{PREFIX}.{kind}": Action("prune", keep=keep) for kind in kinds}


def plan_of(analysis: Analysis, rows: Rows, *, exact: bool) -> Plan:
    return Plan(
        "p", analysis.capture.fingerprint, analysis.geometry, SIGMAS[: len(rows)], "sigma",
        {"main": tuple(rows)}, max_age=4, max_variants=9, exact=exact,
    )  # fmt: skip


def calls(dtype: torch.dtype, count: int) -> list[dict[str, Tensor]]:
    call = network(dtype)[1]
    return [
        {**call, "x": call["x"] * (1 + 0.2 * step), "timesteps": call["timesteps"] / (1 + step)}
        for step in range(count)
    ]


def sampled(dtype: torch.dtype, rows: Rows, *, exact: bool) -> tuple[list[Tensor], dict[str, Any]]:
    """The outputs of a session under a plan, and its report."""
    fast, plan = compiled(dtype), plan_of(network(dtype)[2], rows, exact=exact)
    outputs: list[Tensor] = []
    with turbo4d.session(fast, plan=plan) as run:
        for step, call in enumerate(calls(dtype, len(rows))):
            run.step(step)
            outputs.append(fast(**call))
    return outputs, dict(run.report())


def interpreted(
    dtype: torch.dtype, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Tensor], PlainSCM]:
    """The outputs that plain Python gives, and what it did to each block last."""
    module = network(dtype)[0]
    plain = PlainSCM(module.module, PREFIX)
    outputs: list[Tensor] = []
    with monkeypatch.context() as patch:
        patch.setattr(module.module, "forward", plain)
        for row, call in zip(rows, calls(dtype, len(rows)), strict=True):
            plain.row = row
            outputs.append(module(**call))
    return outputs, plain


@pytest.mark.parametrize("kinds", [("camera",), ("motion",), ("spatial",), KINDS])
def test_half_the_tokens_give_what_plain_python_gives_to_the_bit(
    kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{}, prune(0.5, *kinds), prune(0.25, *kinds), {}, prune(0.5, *kinds)]
    expected, plain = interpreted(torch.float64, rows, monkeypatch)
    got, report = sampled(torch.float64, rows, exact=False)
    assert report["events"] == []
    for step, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert torch.equal(one, other), step
    for kind in kinds:
        mask, _, rest, after = plain.kept[kind]
        assert 0 < float(mask.double().mean()) == 0.5
        assert not torch.equal(rest, after)


def test_whole_groups_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    _, plain = interpreted(torch.float64, [{}, prune(0.5, *KINDS)], monkeypatch)
    camera, motion = plain.kept["camera"][0], plain.kept["motion"][0]
    assert torch.equal(camera, camera[:, :, :1].expand_as(camera))
    assert torch.equal(motion, motion[:, :1].expand_as(motion))
    assert not torch.equal(camera, motion)


def test_the_exact_form_prunes_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{}, prune(0.5, *KINDS), {**prune(0.25, "camera"), f"{PREFIX}.motion": REUSE}]
    expected, _ = interpreted(torch.float64, rows, monkeypatch)
    got, report = sampled(torch.float64, rows, exact=True)
    assert report["calls_by_variant"]["prologue"] == 1
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_tokens_kept_is_computed_to_the_bit(dtype: torch.dtype, exact: bool) -> None:
    computed, _ = sampled(dtype, [{}, {}, {}], exact=exact)
    kept, report = sampled(dtype, [{}, prune(1.0, *KINDS), prune(1.0, "camera")], exact=exact)
    assert all(torch.equal(a, b) for a, b in zip(kept, computed, strict=True))
    assert len(report["calls_by_variant"]) == 3 + exact


def test_what_a_run_holds_is_what_the_proof_says() -> None:
    analysis = network(torch.float64)[2]
    rows = [{}, prune(0.5, *KINDS), {}]
    proof = plan_of(analysis, rows, exact=False).check([r.info for r in analysis.regions])
    _, report = sampled(torch.float64, rows, exact=False)
    # Three residuals of 12 images, 64 tokens and 32 channels, and one float32 for each token.
    assert report["cache_peak_bytes"] == proof.peak_bytes == 12 * 64 * (8 * 3 * 32 + 4)
    [first, pruned, last] = proof.keys["main"]
    assert first is not None
    assert pruned is not None
    assert pruned.relevance == (f"{PREFIX}.spatial.relevance",)
    assert first.writes == pruned.reads == (*sorted(prune(1, *KINDS)), *pruned.relevance)
    assert last is not None
    assert last.writes == ()


def test_a_skipped_step_is_computed_in_full_with_its_relevance() -> None:
    """Whoever begins in the middle of a plan gets an event and every slot it needs later."""
    module, _, analysis = network(torch.float64)
    rows = [{}, prune(0.5, "camera"), prune(0.5, "camera")]
    fast, given = compiled(torch.float64), calls(torch.float64, 3)
    with turbo4d.session(fast, plan=plan_of(analysis, rows, exact=False)) as run:
        run.step(1)
        first = fast(**given[1])
        run.step(2)
        fast(**given[2])
    assert torch.equal(first, module(**given[1]))
    report = run.report()
    assert [event["kind"] for event in report["events"]] == ["full-variant"]
    assert f"{PREFIX}.camera.prune(0.5)" in report["calls_by_variant"]


def test_a_region_without_relevance_is_refused_by_name() -> None:
    rows = [{}, {f"{PREFIX}.chain": Action("prune", keep=0.5)}]
    with pytest.raises(
        PlanError, match="cannot be pruned: its attentions are camera, motion, spat"
    ):
        sampled(torch.float64, rows, exact=False)
