"""Lowering native through torch.compile: sessions, slots and prologue as under eager."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.compiler import backend
from turbo4d.compiler.lower import row_ops
from turbo4d.compiler.lower.compat import inductor_lacks
from turbo4d.compiler.lower.row_kernels import row_kernels_lack

import turbo4d
from tests.compiler.denoisers import sv4d
from tests.compiler.four_steps import SIGMAS, sample

LACKS = inductor_lacks(torch.device("cpu")) or row_kernels_lack()
needs_compiler = pytest.mark.skipif(LACKS is not None, reason=str(LACKS))
pytestmark = [pytest.mark.usefixtures("fresh_dynamo"), needs_compiler]


def test_sessions_agree_with_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    model, call = sv4d("mini")
    called: list[str] = []
    run = row_ops.run
    monkeypatch.setattr(row_ops, "run", lambda name, given: called.append(name) or run(name, given))
    monkeypatch.setattr(backend, "keep_freed_memory", lambda: called.append("kept"))
    found: dict[str, tuple[list[Tensor], Any]] = {}
    for lowering in ("eager", "native"):
        torch._dynamo.reset()
        options = {"plan": "balanced", "lowering": lowering, "keep_memory": lowering == "native"}
        fast = torch.compile(model, backend="turbo4d", fullgraph=True, options=options)
        with turbo4d.session(fast, steps=4, levels=SIGMAS) as session, torch.no_grad():
            outputs = sample(fast, call, session)
        found[lowering] = outputs, session.report()["calls_by_variant"]
        assert bool(called) == (lowering == "native")
    assert found["native"][1] == found["eager"][1]
    assert {*called} == {
        "kept", "gated_feed_forward", "group_norm", "sequence_convolution", "short_attention",
    }  # fmt: skip
    assert called.count("kept") == 1
    for one, other in zip(found["native"][0], found["eager"][0], strict=True):
        assert one.stride() == other.stride()
        assert float((one - other).norm() / other.norm()) < 1e-5
