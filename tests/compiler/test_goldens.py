"""Stored texts of one small network: what a variant is, what its prologue is, what explain says.

`TURBO4D_UPDATE_GOLDEN=1` stores them anew; a change of theirs is then a diff to read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.explain import explain
from turbo4d.compiler.machine import gpu
from turbo4d.compiler.show import graph_text
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.action import BYPASS, REUSE
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.captures import analysed, build

FOLDER = Path(__file__).parent / "golden"
CHAIN = "stack.0.chain"


def prologue() -> str:
    return graph_text(exact_form(analysed("chain")).prologue.module.graph)


def reuse() -> str:
    key = VariantKey(((CHAIN, REUSE),), (), exact=True)
    return graph_text(specialise(analysed("chain"), key).module.graph)


def explained() -> str:
    """Under a plan of its own: the presets may change."""
    model, call = build("chain", device="meta")
    levels = (8.0, 6.0, 4.0, 2.0, 1.0)
    # A machine of the table, for what this one measures is its own.
    info = explain(model, (), call, plan="exact", levels=levels, machine=gpu("h100", torch.float32))
    rows = ({}, {CHAIN: REUSE}, {"stack.0.motion": BYPASS}, {}, {CHAIN: REUSE})
    plan = replace(info.plan, streams={"main": rows}, max_age=2, max_variants=5)
    return f"{replace(info, plan=plan)}\n"


TEXTS: dict[str, Callable[[], str]] = {
    "chain.prologue": prologue,
    "chain.reuse": reuse,
    "chain.explain": explained,
}


@pytest.mark.parametrize("stem", TEXTS)
def test_text_is_the_golden(stem: str) -> None:
    text, path = TEXTS[stem](), FOLDER / f"{stem}.txt"
    if os.environ.get("TURBO4D_UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_a_golden_is_the_same_on_every_machine(path: Path) -> None:
    """No address, no path, no device."""
    assert not re.search(r"0x[0-9a-f]{5}|/\w+/|\bcpu\b|\bcuda\b|\bmeta\b", path.read_text())


def test_every_golden_has_a_text() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == {*TEXTS, "transformer"}
