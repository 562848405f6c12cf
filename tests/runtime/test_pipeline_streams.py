"""Guidance, windows and alternating passes: every stream gives what it gives alone.

All with poison, so that a slot which is let go too soon shows as NaN; and once more with the slots
of one stream overwritten with NaN after each of its steps, which no other may notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.backend import build_engine, build_prologue, signature_of
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.lower import get_lowering
from turbo4d.models.branches import Branches
from turbo4d.models.guiders import Guider, IntervalGuider, RescaledGuider, VanillaCFG
from turbo4d.models.pipeline import sample_pass
from turbo4d.models.recipes import Pass
from turbo4d.models.sampler import guided_denoiser, sample_euler
from turbo4d.models.schedule import edm_sigmas
from turbo4d.models.windows import frame_windows, windowed_denoiser
from turbo4d.runtime.action import Action
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.session import Session

from tests.compiler.denoisers import config_of, sv4d
from tests.support import flat_args
from turbo4d import session

FRAMES, VIEWS, SIDE, STEPS = 3, 2, 4, 12
ONE_WAY = Pass("main", (0, 1, 2), {"forward": None})
THERE_AND_BACK = Pass("dense0", (0, 1, 2), {"backward": 2, "forward": 0})
GUIDER = VanillaCFG(2.5)
LEVELS = edm_sigmas(STEPS)
LIMITED = IntervalGuider(GUIDER, lowest=float(LEVELS[9]), highest=float(LEVELS[3]))
# Of each stream's own steps; a stream that runs at every second step takes half of them.
ROWS = ({}, {}, {"core": "reuse(1)"}, {"chains": "reuse"}, {}, {"core": "reuse(2)"})


@cache
def captured(branches: int) -> Analysis:
    model, call = sv4d("mini", branches=branches)
    return analyse(capture_export(model, (), call))


def branches_of(seed: int, frames: int = FRAMES) -> Branches:
    config, images = config_of("mini"), frames * VIEWS
    generator = torch.Generator().manual_seed(seed)

    def draw() -> dict[str, Tensor]:
        shapes = {
            "concat": (images, 4, SIDE, SIDE),
            "cond_motion": (frames, 4, SIDE, SIDE),
            "cond_view": (VIEWS, 4, SIDE, SIDE),
            "crossattn": (1, frames, config.context_dim),
            "vector": (images, config.adm_in_channels),
        }
        return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}

    return Branches(draw(), draw(), frames, VIEWS)


@dataclass
class Told:
    """A denoiser in a session, and all that went in and out of it, by stream and step."""

    runner: Runner
    analysis: Analysis
    run: Session
    at: tuple[str, int] = ("", 0)
    seen: list[tuple[str, int, list[Tensor], Tensor]] = field(default_factory=list)

    def step(self, i: int, stream: str) -> None:
        self.run.step(i, stream=stream)
        self.at = stream, i

    def __call__(self, x: Tensor, timesteps: Tensor, **inputs: Any) -> Tensor:
        call = {"x": x, "timesteps": timesteps, **inputs}
        args = [tensor.clone() for tensor in flat_args(self.analysis.capture, (), call)]
        weights = self.runner.signature.weight_count
        args[:weights] = flat_args(self.analysis.capture, (), call)[:weights]
        output = self.runner(*args)[0]
        self.seen.append((*self.at, args, output.clone()))
        return output


Sample = Callable[[Told, Tensor, Tensor], Tensor]


def one_pass(
    run: Pass,
    told: Told,
    noise: Tensor,
    sigmas: Tensor,
    *,
    sequential: bool,
    guider: Guider = GUIDER,
) -> Tensor:
    return sample_pass(
        told, run, {name: branches_of(n) for n, name in enumerate(run.view_frames)}, noise, sigmas,
        guider, sequential=sequential, every_branch=False,
        before_step=lambda i, sigma, stream: told.step(i, stream),
    )  # fmt: skip


def windows(told: Told, noise: Tensor, sigmas: Tensor) -> Tensor:
    spans = frame_windows(2 * FRAMES - 1, FRAMES, 1)
    denoisers = [guided_denoiser(told, branches_of(n), GUIDER, sigmas) for n in range(len(spans))]
    whole = windowed_denoiser(
        denoisers, spans, VIEWS, noise, lambda i, k: told.step(i, f"window{k}")
    )
    return sample_euler(whole, noise, sigmas)


@dataclass(frozen=True)
class Case:
    """A way of sampling: its streams, and which steps each runs."""

    sample: Sample
    streams: dict[str, range]
    branches: int = 2
    frames: int = FRAMES


EVEN, ODD = range(0, STEPS, 2), range(1, STEPS, 2)
EVERY = range(STEPS)
CASES = {
    "batched guidance": Case(partial(one_pass, ONE_WAY, sequential=False), {"main.forward": EVERY}),
    "sequential guidance": Case(
        partial(one_pass, ONE_WAY, sequential=True),
        {"main.forward.uncond": EVERY, "main.forward.cond": EVERY},
        branches=1,
    ),
    "guidance rescale": Case(
        partial(one_pass, ONE_WAY, sequential=True, guider=RescaledGuider(GUIDER, 0.7)),
        {"main.forward.uncond": EVERY, "main.forward.cond": EVERY},
        branches=1,
    ),
    "limited guidance": Case(
        partial(one_pass, ONE_WAY, sequential=True, guider=LIMITED),
        {"main.forward.uncond": range(3, 10), "main.forward.cond": EVERY},
        branches=1,
    ),
    "no guidance": Case(
        partial(one_pass, ONE_WAY, sequential=False, guider=VanillaCFG(1.0)),
        {"main.forward": EVERY},
        branches=1,
    ),
    "windows": Case(windows, {"window0": EVERY, "window1": EVERY}, frames=2 * FRAMES - 1),
    "dense pass": Case(
        partial(one_pass, THERE_AND_BACK, sequential=False),
        {"dense0.backward": EVEN, "dense0.forward": ODD},
    ),
    "dense pass, sequential": Case(
        partial(one_pass, THERE_AND_BACK, sequential=True),
        {f"dense0.{way}.{branch}": steps for way, steps in (("backward", EVEN), ("forward", ODD))
         for branch in ("uncond", "cond")},
        branches=1,
    ),
}  # fmt: skip


def runner_of(case: Case) -> tuple[Runner, Plan]:
    analysis = captured(case.branches)
    signature = signature_of(analysis)
    chains = [region.name for region in signature.regions if region.kind == "chain"]

    def row(texts: dict[str, str]) -> dict[str, Action]:
        named = {name: Action.parse(text) for name, text in texts.items()}
        return {
            name: action
            for key, action in named.items()
            for name in (chains if key == "chains" else [key])
        }

    streams: dict[str, tuple[dict[str, Action] | None, ...]] = {}
    for name, steps in case.streams.items():
        rows = {step: row(ROWS[n % len(ROWS)]) for n, step in enumerate(steps)}
        streams[name] = tuple(rows.get(step) for step in range(STEPS))
    levels = tuple(edm_sigmas(STEPS)[:-1].tolist())
    plan = Plan(
        "p", signature.model, signature.geometry, levels, "sigma", streams, STEPS, max_variants=9
    )
    made = partial(build_engine, analysis, get_lowering("eager"))
    prologue = partial(build_prologue, analysis)
    return Runner(signature, made, plan=plan, prologue=prologue), plan


@cache
def sampled(name: str) -> tuple[Told, Tensor]:
    """A run of one case, in a session of all its streams."""
    case = CASES[name]
    runner, _ = runner_of(case)
    noise = torch.randn(
        case.frames * VIEWS, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(9)
    )
    with session(runner) as run:
        told = Told(runner, captured(case.branches), run)
        return told, case.sample(told, noise, edm_sigmas(STEPS))


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TURBO4D_POISON", "1")
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", CASES)
def test_each_stream_gives_what_it_gives_alone(name: str) -> None:
    case = CASES[name]
    told, latent = sampled(name)
    assert latent.isfinite().all()
    report = told.run.report()
    assert report["events"] == []
    calls: dict[str, int] = {}
    for stream, steps in case.streams.items():
        own = [(step, args, output) for at, step, args, output in told.seen if at == stream]
        assert [step for step, _, _ in own] == [*steps]
        with session(told.runner) as alone:
            for step, args, output in own:
                alone.step(step, stream=stream)
                assert torch.equal(told.runner(*args)[0], output)
        assert alone.report()["events"] == []
        for variant, count in alone.report()["calls_by_variant"].items():
            calls[variant] = calls.get(variant, 0) + count
    assert report["calls_by_variant"] == calls
    assert calls["prologue"] == len(case.streams)
    assert report["engine_calls"] == sum(map(len, case.streams.values()))
    assert sum(count for variant, count in calls.items() if "reuse" in variant) > len(case.streams)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if len(case.streams) > 1])
def test_no_stream_reads_the_slots_of_another(name: str) -> None:
    told, _ = sampled(name)
    first, *_, last = CASES[name].streams
    for victim in (first, last):
        spoilt = False
        with session(told.runner) as run:
            for stream, step, args, output in told.seen:
                run.step(step, stream=stream)
                found = told.runner(*args)[0]
                if stream == victim:
                    spoil(run, victim)
                    spoilt = spoilt or bool(found.isnan().any())
                else:
                    assert torch.equal(found, output)
        assert spoilt  # its own steps did read what was overwritten


def spoil(run: Session, stream: str) -> None:
    """Overwrites all that a stream holds."""
    [execution] = run._bindings.executions()
    lane = execution._lanes[stream]
    for values in lane.slots._slots.values():
        for value in values:
            for stored in value.stored:
                stored.payload.fill_(float("nan"))


def test_what_one_stream_is_told_anew_the_others_keep() -> None:
    told, _ = sampled("dense pass")
    with session(told.runner) as run:
        for n, (stream, step, args, output) in enumerate(told.seen):
            if n == 6:
                run.new_conditioning("dense0.backward")
            run.step(step, stream=stream)
            found = told.runner(*args)[0]
            assert found.isfinite().all()
            assert torch.equal(found, output) or stream == "dense0.backward"
    events = run.report()["events"]
    assert {event["stream"] for event in events} == {"dense0.backward"}
    assert events[0]["kind"] == "full-variant"
    assert run.report()["calls_by_variant"]["prologue"] == 3


def test_a_shared_stream_would_be_another_sample() -> None:
    """The trap: both directions of a dense pass under one name read each other's slots."""
    told, _ = sampled("dense pass")
    runner, plan = runner_of(replace(CASES["dense pass"], streams={"main": EVERY}))
    worst = 0.0
    with session(runner, plan=plan) as run:
        for _, step, args, output in told.seen:
            run.step(step)
            worst = max(worst, float((runner(*args)[0] - output).abs().max()))
    assert worst > 1e-2
