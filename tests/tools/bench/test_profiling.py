"""The profile: every call once, in the region and of the kind that the graph says."""

from __future__ import annotations

import json

import pytest
import torch
from turbo4d.compiler.compat import is_operator
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.action import REUSE
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.bench import node_clock, profiled
from turbo4d.tools.bench.gpu_network import Work
from turbo4d.tools.bench.node_clock import HostClock, timed_calls
from turbo4d.tools.bench.profiling import OUTSIDE, SORTS, innermost, kind_of, profile_variants
from turbo4d.tools.bench.trace_file import trace_of, write_trace

from tests.compiler.denoisers import config_of
from tests.compiler.two_chains import two_chains

CPU = torch.device("cpu")
PLAIN = VariantKey((), (), exact=False)
COMPUTE = VariantKey((), ("core",), exact=True)
REUSED = VariantKey((("core", REUSE),), (), exact=True)
BLOCK = VariantKey((("stack.0.camera", REUSE),), (), exact=True)
KEYS = {PLAIN: 4, COMPUTE: 1, REUSED: 3, BLOCK: 2}


@pytest.fixture(scope="module")
def profiles():
    _, _, analysis, args, _ = two_chains()
    found = profile_variants(analysis, args, KEYS, CPU, runs=2)
    return dict(zip(KEYS, found, strict=True))


def test_calls_one_by_one_give_what_the_graph_gives():
    model, call, analysis, args, _ = two_chains()
    variant = specialise(analysis, PLAIN)
    given = [args[at] for at in variant.arg_indices]
    with torch.no_grad():
        calls, results = timed_calls(variant.module.graph, given, HostClock())
        assert torch.equal(results[0], model(**call))
    assert [node for node, _ in calls] == [
        node for node in variant.module.graph.nodes if node.op == "call_function"
    ]
    assert all(seconds >= 0 for _, seconds in calls)
    assert is_operator(calls[0][0].target)


def test_values_are_let_go_after_their_last_use(monkeypatch):
    """What a call holds at once is what generated code holds, so memory is as of a plain run."""
    _, _, analysis, args, _ = two_chains()
    variant = specialise(analysis, PLAIN)
    alive: list[int] = []

    class Watching(HostClock):
        def mark(self) -> None:
            frame = __import__("sys")._getframe(1)
            alive.append(len(frame.f_locals["values"]))
            super().mark()

    timed_calls(variant.module.graph, [args[at] for at in variant.arg_indices], Watching())
    assert alive[-1] < max(alive) < len(variant.module.graph.nodes) / 2


def test_every_call_lies_in_its_region_and_kind(profiles):
    plain = profiles[PLAIN]
    by_kind = plain.by(kind_of)
    assert {"spatial", "camera", OUTSIDE} == set(by_kind)
    assert sum(by_kind.values()) == pytest.approx(plain.seconds)
    assert {call.sort for call in plain.calls} <= set(SORTS)
    for call in plain.calls:
        if call.op.startswith("scaled_dot_product_attention"):
            assert call.path[-1].rpartition(".")[2] == call.kind
            assert call.sort == "attention"
    convolutions = [call for call in plain.calls if call.sort == "convolution"]
    assert [innermost(call) for call in convolutions] == ["step", "step"]
    assert all(call.flops > 0 for call in convolutions)


def test_what_is_reused_takes_no_time(profiles):
    assert "stack.0.camera" in profiles[PLAIN].by(innermost)
    assert "stack.0.camera" not in profiles[BLOCK].by(innermost)
    assert "stack.1.camera" in profiles[BLOCK].by(innermost)
    assert "stack.1.camera" not in profiles[REUSED].by(innermost)
    assert len(profiles[REUSED].calls) < len(profiles[BLOCK].calls) < len(profiles[COMPUTE].calls)


def test_the_trace_nests_regions_and_adds_up(profiles, tmp_path):
    path = tmp_path / "x.trace.json"
    write_trace([*profiles.values()], "title", path)
    found = json.loads(path.read_text())
    assert found == trace_of([*profiles.values()], "title")
    events = [event for event in found["traceEvents"] if event["ph"] == "X"]
    assert [p.name for p in tmp_path.iterdir()] == ["x.trace.json"]
    for track, profile in enumerate(profiles.values(), 1):
        own = [event for event in events if event["tid"] == track]
        calls = [event for event in own if event["cat"] != "region"]
        assert len(calls) == len(profile.calls)
        whole = own[0]
        assert whole["name"] == profile.name
        assert whole["dur"] == pytest.approx(profile.seconds * 1e6, abs=0.125)
        _assert_nested(own)
    names = {event["name"] for event in events if event["cat"] == "region"}
    assert {"core", "step", "stack.0.chain", "stack.0.spatial"} <= names


def _assert_nested(events) -> None:
    """On a track every slice lies within the one that is open, in whole nanoseconds."""
    open_: list[tuple[float, float]] = []
    for event in events:
        begun, end = event["ts"], event["ts"] + event["dur"]
        assert (begun * 1000).is_integer()
        assert (end * 1000).is_integer()
        while open_ and open_[-1][1] <= begun and open_[-1][1] < end:
            open_.pop()
        assert not open_ or end <= open_[-1][1]
        open_.append((begun, end))


def test_the_table_names_kinds_regions_and_how_far_it_disturbs(profiles):
    text = profiled.table([profiles[PLAIN], profiles[REUSED]])
    first = text.splitlines()[0]
    assert first.startswith("plain compute: 4 steps, ")
    assert "call by call" in first
    for word in ("spatial", "camera", "other", "attention", "convolution", "stack.0.camera"):
        assert word in text
    assert sum(profiled.shares(profiles[PLAIN]).values()) == pytest.approx(1)


def test_a_plan_is_profiled_from_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(Work, "config", property(lambda self: config_of("mini")))
    trace = tmp_path / "x.trace.json"
    text = profiled.write_profile(Work("tiny", "cpu", "fp32", 4, seed=78), "fast", trace, runs=1)
    assert text.startswith("turbo4d tiny, fp32, plan fast, eager, cpu: ")
    assert "plain compute: 4 steps" in text
    assert "motion" in text
    tracks = {event["tid"] for event in json.loads(trace.read_text())["traceEvents"]}
    assert len(tracks) == text.count("call by call") + 1


def test_a_gpu_is_timed_by_events_in_its_own_queue(monkeypatch):
    """Up to the library: two events a call, one wait at the end."""
    made: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing
            self.at = len(made)

        def record(self) -> None:
            made.append("event")

        def elapsed_time(self, other: Event) -> float:
            return float(other.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: made.append("wait"))
    clock = node_clock.clock_for(torch.device("cuda"))
    for _ in range(4):
        clock.mark()
    assert clock.seconds() == [1e-3] * 3
    assert made == ["event"] * 4 + ["wait"]
