"""merge-shared-projections: fires, refuses, idles, composes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.prologue import hoist
from turbo4d.passes import MergeSharedProjections, ReuseRegion

from tests.passes.stream import make_stream
from tests.support import assert_idle, assert_rewrite, flat_args, fork, nodes_of

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
MERGE = MergeSharedProjections(varying=("i_x",))


def test_queries_keys_and_values_are_one_product() -> None:
    model, inputs = make_stream(keys=3)
    x, context = inputs
    with torch.no_grad():
        hidden = model.into(x)
        weights = torch.cat([model.first.q.weight, model.first.k.weight, model.first.v.weight])
        parts = (model.first.norm(hidden) @ weights.T).chunk(3, -1)
        heads = [part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts]
        scores = (heads[0] @ heads[1].mT / 2).softmax(-1) @ heads[2]
        hidden = hidden + model.first.out(scores.transpose(1, 2).flatten(2))
        expected = model.out(hidden + model.cross(hidden, context))
    done = assert_rewrite(
        MERGE,
        model,
        inputs,
        fires=3,
        gone={aten.linear.default: 2, SDPA: 0},
        # The projections of the context, which no sample reaches, stay two.
        stays={aten.linear.default: 8, aten.slice.Tensor: 3},
        golden="merge_shared_projections",
        expected=[expected],
        atol=1e-13,
        rtol=1e-12,
    )
    before = sum(count_flops(capture_export(model, inputs).module.graph).values())
    assert sum(count_flops(done.module.graph).values()) == before


class Several(nn.Module):
    """Layers that all read one value."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x.sin()).flatten(1) for layer in self.layers], 1)


def merged(x: Tensor, *layers: nn.Module) -> tuple[list[str], list[str]]:
    """The places that were merged, and the reasons for those that were not."""
    model = Several(*layers).eval()
    capture = capture_export(model, (x,))
    gm = fork(capture.module)
    # The value is computed once for each layer; only here they are one node.
    first, *others = nodes_of(gm.graph, aten.sin.default)
    for other in others:
        other.replace_all_uses_with(first)
        gm.graph.erase_node(other)
    report = MERGE(gm)
    with torch.no_grad():
        (got,) = gm(*flat_args(capture, [x]))
        torch.testing.assert_close(got, model(x), atol=1e-5, rtol=1e-5)
    return [place.split()[0] for place in report.rewritten], [s.reason for s in report.skipped]


def test_convolutions_of_one_kernel_are_merged() -> None:
    x = torch.randn(2, 4, 5, 5)
    layers = (nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(4, 3, 1))
    assert merged(x, *layers) == (["%conv2d", "%conv2d_1"], [])


@pytest.mark.parametrize(
    ("layers", "reasons"),
    [
        ((nn.Linear(4, 3), nn.Linear(4, 3, bias=False)), []),
        ((nn.Conv1d(4, 4, 1, groups=2), nn.Conv1d(4, 2, 1, groups=2)), ["it has 2 groups"] * 2),
        ((nn.Conv1d(4, 3, 2), nn.Conv1d(4, 3, 2, stride=2)), []),
        (
            (
                nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
                nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
            ),
            ["its weight is computed"] * 2,
        ),
    ],
)
def test_refuses(layers: tuple[nn.Module, ...], reasons: list[str]) -> None:
    assert merged(torch.randn(2, 4, 4), *layers) == ([], reasons)


def test_idles_on_what_is_computed_once_and_the_second_time() -> None:
    module = capture_export(*make_stream()).module
    assert_idle(MergeSharedProjections(varying=()), module)
    gm = fork(module)
    MERGE(gm)
    assert_idle(MERGE, gm)


def test_composes_with_hoisting() -> None:
    """The joined weight is a constant expression of the prologue, and is held for the session."""
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    MERGE(gm)
    prologue = hoist(gm, ["i_context", "i_x"], ["i_x"])
    assert {"cat_default"} <= prologue.constants
    assert prologue.sizes[prologue.names.index("cat_default")] == 3 * 8 * 8 * 8
    assert nodes_of(gm.graph, aten.cat.default) == []


def test_composes_with_reuse_of_what_reads_a_part() -> None:
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    MERGE(gm)
    ReuseRegion("first", "linear_4", "slot_first")(gm)
    with torch.no_grad():
        hidden = model.into(inputs[0])
        (got,) = gm(*flat_args(capture, inputs), model.first(hidden))
        torch.testing.assert_close(got, model(*inputs), atol=1e-14, rtol=1e-13)
    assert len(nodes_of(gm.graph, SDPA)) == 1
