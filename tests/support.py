"""What tests of rewrites share: a canonical graph to try them on, and `assert_rewrite`."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.flat_args import flat_args as flat_args
from turbo4d.compiler.show import graph_text
from turbo4d.compiler.verify import verify
from turbo4d.passes import Pass, PassReport

GOLDEN = Path(__file__).parent / "passes" / "golden"


@dataclass(frozen=True)
class Rewritten:
    """A graph after a pass, what the pass said, and what the graph gives."""

    module: fx.GraphModule
    report: PassReport
    outputs: tuple[Tensor, ...]


def fork(module: fx.GraphModule) -> fx.GraphModule:
    """A copy that may be rewritten."""
    return fx.GraphModule(module, copy.deepcopy(module.graph))


def nodes_of(graph: fx.Graph, target: Any) -> list[fx.Node]:
    """The calls of one operator, in order."""
    return list(graph.find_nodes(op="call_function", target=target))


def assert_rewrite(
    pass_: Pass | Callable[[fx.Graph], Pass],
    module: nn.Module,
    inputs: Sequence[Tensor],
    *,
    fires: int,
    gone: Mapping[Any, int],
    stays: Mapping[Any, int],
    golden: str | None,
    expected: Sequence[Tensor],
    atol: float,
    rtol: float,
    slots: Sequence[Tensor] = (),
) -> Rewritten:
    """Capture `module`, apply a pass, and check all that a rewrite must keep.

    Args:
        pass_: the pass, or what makes it of the canonical graph, where it names nodes.
        module: in eval mode.
        inputs: of one call.
        fires: how many places are rewritten.
        gone: for each operator, how many of its calls disappear.
        stays: for each operator, how many of its calls are left.
        golden: stem of the file in tests/passes/golden with the rewritten graph's text.
        expected: outputs by an independent reference.
        atol: no default; 0 where the pass is exact.
        rtol: likewise.
        slots: what the rewritten graph takes after the module's inputs.
    """
    capture = capture_export(module, tuple(inputs))
    before = graph_text(capture.module.graph)
    gm = fork(capture.module)
    chosen = pass_ if isinstance(pass_, Pass) else pass_(gm.graph)
    report = chosen(gm)
    assert len(report.rewritten) == fires, report
    for target, count in gone.items():
        was, left = (len(nodes_of(graph, target)) for graph in (capture.module.graph, gm.graph))
        assert was - left == count, f"{target}: {was} before, {left} after"
    for target, count in stays.items():
        assert len(nodes_of(gm.graph, target)) == count, target
    names = [node.name for node in gm.graph.find_nodes(op="placeholder")]
    assert names[: len(capture.table)] == [row.name for row in capture.table]
    verify(gm, inputs=names, full=True)
    assert graph_text(capture.module.graph) == before, "the pass reached into the captured graph"
    if golden is not None:
        assert_golden(golden, graph_text(gm.graph, capture.table))
    with torch.no_grad():
        outputs = gm(*flat_args(capture, inputs), *slots)
    torch.testing.assert_close(list(outputs), list(expected), atol=atol, rtol=rtol)
    return Rewritten(gm, report, tuple(outputs))


def assert_idle(pass_: Pass, module: fx.GraphModule) -> PassReport:
    """Apply a pass to a copy of a graph, and check that not a character changed."""
    gm = fork(module)
    report = pass_(gm)
    assert not report.rewritten
    assert graph_text(gm.graph) == graph_text(module.graph)
    return report


def assert_golden(stem: str, text: str) -> None:
    """Compare with the stored text; `TURBO4D_UPDATE_GOLDEN=1` stores it instead."""
    path = GOLDEN / f"{stem}.txt"
    if os.environ.get("TURBO4D_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
