"""Lowering auto: the kernels where they can run, the module's own bits where those are asked."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.lower.auto import AutoLowering
from turbo4d.compiler.lower.eager import EagerEngine
from turbo4d.compiler.lower.native import NativeLowering
from turbo4d.compiler.specialise import Variant, specialise
from turbo4d.runtime.engine import Engine
from turbo4d.runtime.variant_key import VariantKey

import turbo4d
from tests.compiler.captures import analysed, build


@dataclass
class Native(NativeLowering):
    """Says that it lacks `missing`, and notes what it is asked to compile."""

    missing: tuple[str, ...] = ()
    broken: str = ""
    compiled: list[str] = field(default_factory=list[str])

    def lacks(self) -> tuple[str, ...]:
        return self.missing

    def compile(self, variant: Variant) -> EagerEngine:
        self.compiled.append(variant.key.name)
        if self.broken:
            raise LowerError(self.broken)
        return EagerEngine(variant)


@pytest.mark.parametrize(
    ("exact", "missing", "compiled", "told"),
    [
        (True, (), ["compute"], "compute: lowering 'native'"),
        (True, ("no C++",), [], "compute: lowering 'eager', not 'native': no C++"),
        (False, (), [], "lowering 'eager', not 'native': it is to be exact in every bit"),
    ],
)
def test_each_variant_has_its_lowering_and_the_reason(
    exact: bool, missing: tuple[str, ...], compiled: list[str], told: str
) -> None:
    native, said = Native(missing), list[str]()
    auto = AutoLowering(native, said.append)
    made = specialise(analysed("chain"), VariantKey((), (), exact=exact))
    engine: Engine = auto.compile(made)
    assert auto.supports(made) == ()
    assert engine.key == made.key
    assert native.compiled == compiled
    assert len(said) == 1
    assert said[0].endswith(told)
    lost = [f"lowering 'eager', not 'native': {missing[0]}."] if missing else []
    assert [note.message for note in auto.notes] == lost


def test_kernels_that_do_not_compile_are_tried_once_and_give_way_aloud() -> None:
    native, said = Native(broken="the row kernels do not compile: c++ says no."), list[str]()
    auto = AutoLowering(native, said.append)
    made = specialise(analysed("chain"), VariantKey((), (), exact=True))
    engines = [auto.compile(made), auto.compile(made)]
    assert [engine.key for engine in engines] == [made.key, made.key]
    assert native.compiled == ["compute"]
    wanted = "compute: lowering 'eager', not 'native': the row kernels do not compile: c++ says no."
    assert said == [wanted, wanted]
    assert [(note.kind, note.message) for note in auto.notes] == [
        ("lowering-fallback", wanted.removeprefix("compute: "))
    ]


def test_a_machine_without_what_the_kernels_take_says_so_in_each_report(
    monkeypatch: pytest.MonkeyPatch, fresh_dynamo: None
) -> None:
    monkeypatch.setattr(NativeLowering, "lacks", lambda self: ("no C++ compiler is found",))
    module, call = build("chain")
    for plan, events in (("exact", ["lowering-fallback"]), ("none", [])):
        fast = torch.compile(module, backend="turbo4d", options={"plan": plan})
        with torch.no_grad(), turbo4d.session(fast, levels=[2.0, 1.0]) as run:
            run.step(0)
            fast(**call)
        assert [event["kind"] for event in run.report()["events"]] == events
        torch.compiler.reset()
