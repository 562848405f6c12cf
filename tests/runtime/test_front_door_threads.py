"""Two threads, each with a session on one compiled model, through torch.compile itself."""

import threading
from functools import partial
from typing import Any

import pytest
import torch

from tests.compiler import foreign
from turbo4d import session

SIGMAS = torch.logspace(2, -1, 6).tolist()
STREAMS = ("cond", "uncond")


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def sample(fast, call, seed):
    """All outputs of a run of two streams whose samples and texts depend on the seed."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(call["x"].shape, generator=generator)
    texts = {name: torch.randn(call["text"].shape, generator=generator) for name in STREAMS}
    outputs = []
    with torch.no_grad(), session(fast, levels=SIGMAS) as run:
        for step, sigma in enumerate(SIGMAS):
            for stream in STREAMS:
                run.step(step, stream=stream)
                level = torch.full_like(call["sigma"], sigma)
                outputs.append(fast(x, level, texts[stream]))
            x = x - 0.05 * outputs[-1]
    return outputs, run.report()


def at_once(*jobs):
    """What each job gives, all started together, each in a thread of its own."""
    barrier = threading.Barrier(len(jobs), timeout=60)
    results = {}

    def work(number, job):
        barrier.wait()
        results[number] = job()

    threads = [threading.Thread(target=work, args=job) for job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return [results[number] for number in range(len(jobs))]  # a job that raised is missing


def compiled() -> tuple[Any, dict[str, Any]]:
    model, call = foreign.build("multi_view")
    return torch.compile(model, backend="turbo4d", options={"plan": "fast"}), call


def assert_same(one, other):
    (outputs, report), (others, other_report) = one, other
    assert len(outputs) == len(others) == len(SIGMAS) * len(STREAMS)
    assert all(torch.equal(a, b) for a, b in zip(outputs, others, strict=True))
    assert not any(output.isnan().any() for output in outputs)
    assert report == other_report
    assert report["calls_by_variant"]["prologue"] == len(STREAMS)
    assert report["events"] == []
    assert len(report["calls_by_variant"]) > 2  # some steps reuse


def test_two_sessions_at_once_give_what_they_give_in_turn(monkeypatch):
    """With poison, so that a slot which is let go while another thread reads it shows."""
    monkeypatch.setenv("TURBO4D_POISON", "1")
    fast, call = compiled()
    in_turn = [sample(fast, call, seed) for seed in (0, 1)]
    assert not torch.equal(in_turn[0][0][0], in_turn[1][0][0])
    for _ in range(2):
        together = at_once(*(partial(sample, fast, call, seed) for seed in (0, 1)))
        for one, other in zip(in_turn, together, strict=True):
            assert_same(one, other)


def test_the_first_compile_may_happen_in_two_threads_at_once():
    fast, call = compiled()
    together = at_once(*(partial(sample, fast, call, seed) for seed in (0, 1)))
    torch._dynamo.reset()
    fast, call = compiled()
    for seed, result in enumerate(together):
        assert_same(sample(fast, call, seed), result)


def test_a_module_that_torch_compiles_twice_is_one_denoiser_to_a_session():
    """Grad mode is guarded: the second step compiles anew, and must still find its slots."""
    fast, call = compiled()
    outputs = []
    with session(fast, levels=SIGMAS) as run:
        for step, sigma in enumerate(SIGMAS):
            run.step(step)
            with torch.set_grad_enabled(step % 2 == 1):
                outputs.append(fast(call["x"], torch.full_like(call["sigma"], sigma), call["text"]))
    report = run.report()
    assert len(outputs) == len(SIGMAS)
    assert {event["kind"] for event in report["events"]} <= {"no-gradient"}
    assert report["calls_by_variant"]["prologue"] == 1
