"""A refusal says where: the capture keeps each call's module, through either door."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from turbo4d.compiler.capture import capture_compiled, capture_export
from turbo4d.compiler.ir import Capture
from turbo4d.compiler.lower.onnx_export import graph_reasons


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.digamma(x)


class Net(nn.Module):
    """What has no ONNX form stands in two modules, one in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), Odd())])
        self.last = Odd()

    def forward(self, x: Tensor) -> Tensor:
        for part in self.down:
            x = part(x)
        return self.last(x)


WANTED = (
    "aten.digamma.default has no ONNX form here (2 calls, the first %digamma in module 'down.0.1'; "
    "no pass removes it; write it otherwise in the model, or choose lowering 'eager')",
)


def compiled(module: nn.Module, given: Tensor) -> Capture:
    found: list[Capture] = []

    def door(gm: fx.GraphModule, inputs: Any) -> Any:
        found.append(capture_compiled(gm, inputs))
        return gm.forward

    with torch.no_grad():
        torch.compile(module, backend=door, fullgraph=True)(given)
    torch.compiler.reset()
    [capture] = found
    return capture


def test_both_doors_keep_the_module_of_a_call() -> None:
    module, given = Net().eval().requires_grad_(False), torch.rand(2, 4)
    for capture in (capture_export(module, (given,)), compiled(module, given)):
        assert graph_reasons(capture.module) == WANTED, capture.door
        calls = [node for node in capture.module.graph.nodes if node.op == "call_function"]
        assert [node.meta["module"] for node in calls] == ["down.0.0", "down.0.1", "last"]
