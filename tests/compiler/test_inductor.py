"""Lowering 'inductor': right to rounding, shared between variants, kept on disk, clear errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch._inductor import config
from turbo4d.compiler.backend import lower
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.lower import get_lowering, segment_library
from turbo4d.compiler.lower.compat import Compiled, Form, inductor_lacks
from turbo4d.compiler.lower.eager import EagerEngine
from turbo4d.compiler.lower.inductor import InductorEngine, InductorLowering
from turbo4d.compiler.lower.segment_library import LIBRARY, SegmentLibrary
from turbo4d.runtime.progress import Progress
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.test_segments import BYPASSED, COMPUTE, CORE, RECORD, REUSED, VARIANTS, variant
from tests.compiler.two_chains import two_chains

LACKS = inductor_lacks(torch.device("cpu"))
needs_compiler = pytest.mark.skipif(LACKS is not None, reason=str(LACKS))
# Inductor sums in another order. A sum of n terms errs by about sqrt(n) units in the last place,
# 6e-8 in fp32; the longest sums here have 72 terms, a dozen follow each other.
BOUND = 2e-6


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def built(key: VariantKey) -> InductorEngine:
    engine = lower(variant(key), InductorLowering())
    assert isinstance(engine, InductorEngine)
    return engine


def given_to(key: VariantKey) -> tuple[Sequence[Tensor], Sequence[Tensor], list[Tensor]]:
    """Arguments, prologue, and random slots of one value each."""
    made = variant(key)
    torch.manual_seed(1)
    slots = [node.meta["val"] for node in made.module.graph.nodes if node.op == "placeholder"]
    slots = slots[len(slots) - len(made.reads) :]
    _, _, _, args, prologue = two_chains()
    return args, prologue, [torch.randn(slot.shape) for slot in slots]


def error(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@needs_compiler
@pytest.mark.parametrize("key", VARIANTS, ids=lambda key: key.name)
def test_it_computes_what_eager_does(key: VariantKey) -> None:
    args, prologue, slots = given_to(key)
    found, wanted = (
        [*outputs, *slots_out]
        for outputs, slots_out in (
            engine(args, prologue, slots) for engine in (built(key), EagerEngine(variant(key)))
        )
    )
    assert len(found) == len(wanted) == 1 + len(key.writes)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert error(one, other) < BOUND
    assert found[0].stride() == wanted[0].stride()


@needs_compiler
def test_variants_share_what_is_compiled() -> None:
    library = SegmentLibrary()
    lowering = InductorLowering(library)
    sizes = []
    for key in (COMPUTE, RECORD, REUSED, BYPASSED, CORE):
        lowering.compile(variant(key))
        sizes.append(len(library))
    assert sizes == [5, 5, 5, 5, 5]


@needs_compiler
def test_nothing_that_is_given_shares_memory() -> None:
    """A caller may write into outputs; slots and inputs must not notice."""
    for key in (RECORD, REUSED, CORE):
        args, prologue, slots = given_to(key)
        outputs, slots_out = built(key)(args, prologue, slots)
        made = [tensor.untyped_storage().data_ptr() for tensor in (*outputs, *slots_out)]
        taken = {tensor.untyped_storage().data_ptr() for tensor in (*args, *prologue, *slots)}
        assert len(set(made)) == len(made)
        assert taken.isdisjoint(made)


@needs_compiler
def test_a_slot_is_read_in_the_layout_it_was_written_in() -> None:
    args, prologue, _ = given_to(RECORD)
    outputs, slots = built(RECORD)(args, prologue, ())
    by_name = dict(zip(variant(RECORD).writes, slots, strict=True))
    reader = built(REUSED)
    read = [by_name[name] for name in reader.reads]
    found = reader(args, prologue, read)[0][0]
    assert error(found, outputs[0]) < BOUND
    assert [tensor.stride() for tensor in read] == list(reader._layouts[-2:])
    other = [tensor.contiguous() for tensor in read]
    assert torch.equal(reader(args, prologue, other)[0][0], found)


@needs_compiler
def test_a_prologue_is_lowered_too() -> None:
    _, _, analysis, args, wanted = two_chains()
    prologue = InductorLowering().compile_prologue(exact_form(analysis).prologue)
    for one, other in zip(prologue(args), wanted, strict=True):
        assert one.stride() == other.stride()
        torch.testing.assert_close(one, other, rtol=BOUND, atol=BOUND)


@needs_compiler
def test_autocast_changes_nothing() -> None:
    """Casts are in the graph; compiled code must not make them again."""
    args, prologue, _ = given_to(COMPUTE)
    engine = built(COMPUTE)
    wanted = engine(args, prologue, ())[0][0]
    first, *others = engine.program.steps
    seen: list[bool] = []

    def look(*given: Tensor) -> Sequence[Tensor]:
        seen.append(torch.is_autocast_enabled("cpu"))
        return first.call(*given)

    engine.program.steps = (replace(first, call=look), *others)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(engine(args, prologue, ())[0][0], wanted)
    assert seen == [False]


@needs_compiler
def test_another_layout_is_refused_by_name() -> None:
    _, _, analysis, args, prologue = two_chains()
    sample = analysis.roles.sample
    turned = list(args)
    turned[sample] = args[sample].to(memory_format=torch.channels_last)
    with pytest.raises(LowerError) as caught:
        built(COMPUTE)(turned, prologue, ())
    assert str(caught.value) == (
        "'compute' was compiled for %i_sample of shape [6, 4, 4, 4] and strides [64, 16, 4, 1], "
        "but is called with [6, 4, 4, 4] and [64, 1, 16, 4]; compile the model for this layout."
    )


AGAIN = """
import json
from torch._dynamo.utils import counters
from turbo4d.compiler.lower.inductor import InductorLowering
from tests.compiler.test_segments import COMPUTE, variant
InductorLowering().compile(variant(COMPUTE))
print(json.dumps({name: counters["aot_autograd"]["autograd_cache_" + name] for name in NAMES}))
"""


@needs_compiler
def test_a_second_process_finds_it_on_disk() -> None:
    """In the folder that Inductor uses anyway: what the first finds there is left open."""

    def run() -> dict[str, int]:
        done = subprocess.run(
            [sys.executable, "-c", AGAIN.replace("NAMES", "('hit', 'miss')")],
            env={**os.environ, "PYTHONPATH": "."},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])

    first, second = run(), run()
    assert first["hit"] + first["miss"] == 5
    assert second == {"hit": 5, "miss": 0}


def fake_compiler(calls: list[int]) -> Any:
    def compile_with_inductor(module: fx.GraphModule, inputs: Sequence[Form]) -> Compiled:
        calls.append(len(inputs))
        threading.Event().wait(0.05)  # long enough for the other thread to ask
        return Compiled(module, ())

    return compile_with_inductor


def small_graph() -> tuple[fx.Graph, list[Form]]:
    graph = fx.Graph()
    value = torch.empty(2, 3)
    given = graph.placeholder("in_0")
    result = graph.call_function(torch.ops.aten.sin.default, (given,))
    given.meta["val"] = result.meta["val"] = value
    graph.output((result,))
    return graph, [Form((2, 3), (3, 1), torch.float32, torch.device("cpu"))]


def test_two_threads_compile_a_segment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(segment_library, "compile_with_inductor", fake_compiler(calls))
    library, found = SegmentLibrary(), []
    ask = [threading.Thread(target=lambda: found.append(library.get(*small_graph()))) for _ in "ab"]
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join()
    assert calls == [1]
    assert found[0] is found[1]


def test_another_layout_or_thread_count_is_another_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, (form,) = small_graph()
    turned = Form(form.shape, (1, 2), form.dtype, form.device)
    assert segment_library.key_text(graph, [form]) != segment_library.key_text(graph, [turned])
    before = segment_library.key_text(graph, [form])
    monkeypatch.setattr(segment_library, "inductor_settings", lambda: "threads 99")
    assert segment_library.key_text(graph, [form]) != before


def test_what_cannot_be_compiled_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: fx.GraphModule, inputs: Sequence[Form]) -> Compiled:
        raise RuntimeError("C++ compile error.\n\nCommand: g++ ...")

    calls: list[int] = []
    library = SegmentLibrary()
    monkeypatch.setattr(segment_library, "compile_with_inductor", refuse)
    with pytest.raises(LowerError) as caught:
        library.get(*small_graph())
    assert str(caught.value) == (
        "lowering 'inductor' could not compile a segment of 3 nodes that ends with %sin_default: "
        "RuntimeError: C++ compile error. Choose lowering 'eager'."
    )
    assert len(library) == 0
    monkeypatch.setattr(segment_library, "compile_with_inductor", fake_compiler(calls))
    assert library.get(*small_graph()).strides == ()


@config.patch({"cpp.cxx": (None, "no-such-c++")})
def test_without_a_compiler_it_says_so() -> None:
    compat_lacks = inductor_lacks(torch.device("cpu"))
    assert compat_lacks == (
        "no C++ compiler is found (tried no-such-c++; the variable CXX names another)"
    )
    with pytest.raises(LowerError) as caught:
        lower(variant(COMPUTE), InductorLowering())
    assert str(caught.value) == (
        "lowering 'inductor' cannot take variant 'compute': no C++ compiler is found (tried "
        "no-such-c++; the variable CXX names another)."
    )


def test_a_graph_without_data_has_no_kernels() -> None:
    assert inductor_lacks(torch.device("meta")) == "device 'meta' runs no kernels"


def test_it_is_chosen_by_name_and_shares_the_process_library() -> None:
    lowering = get_lowering("inductor")
    assert isinstance(lowering, InductorLowering)
    assert lowering.library is LIBRARY
    assert get_lowering("auto").name == "auto"


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.say("inductor: segment 1 of 1")
        assert progress._thread is None
    assert capsys.readouterr() == ("", "")


def test_a_long_build_is_shown_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("turbo4d.runtime.progress.QUIET_S", 0.0)
    monkeypatch.setattr("turbo4d.runtime.progress._TICK_S", 0.01)
    with Progress() as progress:
        progress.say("inductor: segment 7 of 19 of 'compute'")
        threading.Event().wait(0.1)
    shown = capsys.readouterr().err
    assert "inductor: segment 7 of 19 of 'compute' (0 s)" in shown
    assert shown.endswith("\r\033[K")
