from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.show import diff, graph_text

from tests.compiler.foreign import Transformer

GOLDEN = Path(__file__).parent / "golden" / "transformer.txt"


class Net(nn.Module):
    """One transformer block over frames, under a factor that is a literal."""

    def __init__(self, factor: float = 2.0, channels: int = 8) -> None:
        super().__init__()
        self.block = Transformer(channels)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * self.factor


def test_text_is_the_golden() -> None:
    capture = capture_export(Net().eval(), (torch.zeros(2, 3, 8),))
    text = graph_text(capture.module.graph, capture.table)
    if os.environ.get("TURBO4D_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_fingerprint_is_of_the_computation_not_of_the_process() -> None:
    x = torch.zeros(2, 3, 8)
    first = capture_export(Net().eval(), (x,)).fingerprint
    assert capture_export(Net().eval(), (x + 1,)).fingerprint == first
    assert capture_export(Net(factor=2.5).eval(), (x,)).fingerprint != first
    assert capture_export(Net().eval(), (x[:1],)).fingerprint != first
    assert capture_export(Net().double().eval(), (x.double(),)).fingerprint != first


def test_diff_shows_the_changed_line_alone() -> None:
    assert diff("a\nb\n", "a\nb\n") == ""
    changed = diff("a\nb\n", "a\nc\n", names=("old", "new")).splitlines()
    assert [line for line in changed if line[0] in "+-"] == ["--- old", "+++ new", "-b", "+c"]
