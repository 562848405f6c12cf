"""Fusing rows: it fires on the blocks of SV4D, keeps what is named, refuses what it cannot take."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from turbo4d.compiler.backend import lower
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.lower import get_lowering
from turbo4d.compiler.lower.compat import inductor_lacks
from turbo4d.compiler.lower.eager import EagerEngine
from turbo4d.compiler.lower.fuse_rows import fuse_rows
from turbo4d.compiler.lower.row_kernels import row_kernels_lack
from turbo4d.compiler.show import graph_text
from turbo4d.compiler.specialise import Variant, specialise
from turbo4d.models.attention import Attention, FeedForward
from turbo4d.models.geometry import Geometry
from turbo4d.models.resblock import ResBlock
from turbo4d.passes.base import returned
from turbo4d.runtime.action import REUSE
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.captures import analysed
from tests.support import flat_args, fork

LACKS = inductor_lacks(torch.device("cpu")) or row_kernels_lack()
needs_compiler = pytest.mark.skipif(LACKS is not None, reason=str(LACKS))
COMPUTE = VariantKey((), (), exact=True)
FEED, SHORT, ALONG, NORM = (
    getattr(torch.ops.turbo4d, name).default
    for name in ("gated_feed_forward", "short_attention", "sequence_convolution", "group_norm")
)
BOUND = 2e-6
"""As in test_row_ops."""


class Normed(nn.Module):
    """A part of a block with the norm before it, and the sum after it if `summed`."""

    def __init__(self, part: nn.Module, width: int = 32, summed: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.part = part
        self.summed = summed

    def forward(self, x: Tensor) -> Tensor:
        y = self.part(self.norm(x))
        return x + y if self.summed else y


class Wrong(FeedForward):
    """A feed-forward that is not quite one."""

    def __init__(self, how: str) -> None:
        super().__init__(32)
        self.how = how

    def forward(self, x: Tensor) -> Any:
        up: Any = self.net[0]
        value, gate = up.proj(x).chunk(2, dim=-1)
        if self.how == "halves":
            value, gate = gate, value
        active = F.gelu(gate, approximate="tanh" if self.how == "tanh" else "none")
        if self.how == "silu":
            active = F.silu(gate)
        product = value * active
        result = self.net[2](product)
        if self.how == "read again":
            return result + product.mean()
        return (result, product) if self.how == "given" else result


def check(module: nn.Module, x: Tensor, fires: dict[Any, int], named: tuple[str, ...] = ()) -> str:
    """Fuses a copy of a module's graph, counts calls, compares results; gives the fused text."""
    capture = capture_export(module.eval(), (x,))
    graph = fork(capture.module).graph
    fused = fuse_rows(graph, named)
    graph.lint()
    calls = Counter(node.target for node in graph.nodes)
    assert {op: calls[op] for op in (FEED, SHORT, ALONG, NORM) if calls[op]} == fires
    assert fused.places == sum(fires.values())
    given = flat_args(capture, (x,))
    names = [node.name for node in returned(capture.module.graph)]
    assert [node.name for node in returned(graph)] == names
    with torch.no_grad():
        found = fx.GraphModule(capture.module, graph)(*given)
        wanted = capture.module(*given)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert float((one - other).norm() / other.norm()) < BOUND
    for node in graph.nodes:
        if node.op == "call_function" and not node.users:
            raise AssertionError(f"%{node.name} is dead")
    return graph_text(graph)


@needs_compiler
@pytest.mark.parametrize("summed", [True, False])
def test_a_feed_forward_is_one_call(summed: bool) -> None:
    module, x = Normed(FeedForward(32), summed=summed), torch.randn(2, 100, 32)
    text = check(module, x, {FEED: 1})
    assert not any(word in text for word in ("aten.linear", "layer_norm", "gelu", "aten.add"))


@needs_compiler
@pytest.mark.parametrize("summed", [True, False])
def test_attention_within_short_sequences_is_one_call(summed: bool) -> None:
    module, x = Normed(Attention(64, 64, 16), 64, summed), torch.randn(40, 5, 64)
    text = check(module, x, {SHORT: 1})
    assert not any(word in text for word in ("aten.linear", "layer_norm", "scaled_dot", "aten.add"))


@needs_compiler
def test_a_residual_blocks_convolutions_over_images_are_calls() -> None:
    block = ResBlock(32, 64, 32, 0.0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.1)
    geometry = Geometry(branches=2, frames=3, views=2)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x, x[:, :, 0, 0], geometry)

    text = check(Block(), torch.randn(12, 32, 5, 5), {ALONG: 2, NORM: 4})
    assert not any(word in text for word in ("aten.conv3d", "aten.group_norm"))
    assert text.count("aten.silu") == 2  # of the embeddings, which are no images
    assert text.count("aten.add") == 2  # of the skip, and of the blend
    assert text.count("aten.conv2d") == 3


@needs_compiler
@pytest.mark.parametrize("dims", [1, 2])
def test_convolutions_along_one_axis_of_any_rank_are_calls(dims: int) -> None:
    module: nn.Module = nn.Conv1d(32, 64, 5, padding=2)
    if dims == 2:
        module = nn.Conv2d(32, 64, (5, 1), padding=(2, 0))
    check(module, torch.randn(3, 32, 50, *[4] * (dims - 1)), {ALONG: 1})


class Shifted(nn.Module):
    """A norm of a sum whose second value has a shape of its own."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, 32)
        self.shift = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(x + self.shift))


@needs_compiler
@pytest.mark.parametrize(
    ("shape", "sums"),
    [
        ((2, 32, 1, 1, 1), 0),
        ((2, 32, 6, 1, 1), 0),
        ((2, 32, 6, 5, 5), 1),
        ((1, 32, 1, 1, 1), 1),
        ((2, 1, 6, 1, 1), 1),
        ((2, 32, 1, 5, 1), 1),
        ((6, 1, 1), 1),
    ],
    ids=str,
)
def test_a_norm_takes_in_the_sums_that_it_can(shape: tuple[int, ...], sums: int) -> None:
    text = check(Shifted(shape), torch.randn(2, 32, 6, 5, 5), {NORM: 1})
    assert text.count("aten.add") == sums
    assert "aten.silu" not in text


def test_other_norms_stay() -> None:
    check(nn.GroupNorm(4, 48), torch.randn(2, 48, 16, 16), {})
    check(nn.GroupNorm(4, 32), torch.randn(2, 32, 4, 4), {})
    check(nn.GroupNorm(4, 32).double(), torch.randn(2, 32, 16, 16, dtype=torch.float64), {})


@pytest.mark.parametrize(
    "given",
    [
        {"kernel_size": (3, 3, 1), "padding": (1, 1, 0)},
        {"kernel_size": (3, 1, 1), "padding": (0, 0, 0)},
        {"kernel_size": (3, 1, 1), "padding": (1, 0, 0), "stride": (2, 1, 1)},
        {"kernel_size": (3, 1, 1), "padding": (2, 0, 0), "dilation": (2, 1, 1)},
        {"kernel_size": (3, 1, 1), "padding": (1, 0, 0), "groups": 2},
        {"kernel_size": (1, 1, 1)},
        {"kernel_size": (2, 1, 1), "padding": (1, 0, 0)},
    ],
    ids=str,
)
def test_other_convolutions_stay(given: dict[str, Any]) -> None:
    check(nn.Conv3d(32, 32, **given), torch.randn(1, 32, 6, 8, 8), {})


@pytest.mark.parametrize("how", ["halves", "tanh", "silu", "read again", "given"])
def test_other_feed_forwards_stay(how: str) -> None:
    check(Wrong(how), torch.randn(200, 32), {})


@pytest.mark.parametrize(
    ("part", "x"),
    [
        (FeedForward(32), torch.randn(5, 20, 32)),
        (FeedForward(48), torch.randn(200, 48)),
        (FeedForward(32).double(), torch.randn(200, 32, dtype=torch.float64)),
        (Attention(32, 32, 8), torch.randn(40, 5, 32)),
        (Attention(32, 32, 16), torch.randn(4, 40, 32)),
    ],
    ids=["few rows", "width 48", "float64", "heads of 8", "long"],
)
def test_what_the_kernels_do_not_take_stays(part: nn.Module, x: Tensor) -> None:
    check(part, x, {})


@needs_compiler
def test_what_is_named_or_read_elsewhere_is_not_lost() -> None:
    module, x = Normed(FeedForward(32)).eval(), torch.randn(200, 32)
    graph = capture_export(module, (x,)).module.graph
    last, total = (node.name for node in list(graph.nodes)[-3:-1])
    text = check(module, x, {FEED: 1}, (last,))
    assert f"%{last}: f32[200, 32] = turbo4d.gated_feed_forward" in text
    assert f"%{total}: f32[200, 32] = aten.add" in text
    norm = next(node.name for node in graph.nodes if "layer_norm" in str(node.target))
    assert f"%{norm}: f32[200, 32] = aten.layer_norm" in check(module, x, {FEED: 1}, (norm,))
    inner = next(node.name for node in graph.nodes if "gelu" in str(node.target))
    check(module, x, {}, (inner,))


def variant(key: VariantKey) -> Variant:
    return specialise(analysed("chain"), key)


@needs_compiler
@pytest.mark.parametrize("reused", [False, True])
def test_lowering_native_agrees_with_eager(reused: bool) -> None:
    name = next(region.name for region in analysed("chain").regions if region.kind == "chain")
    key = VariantKey(((name, REUSE),), (), exact=True) if reused else COMPUTE
    made = variant(key)
    before = graph_text(made.module.graph)
    native = lower(made, get_lowering("native"))
    assert graph_text(made.module.graph) == before
    assert isinstance(native, EagerEngine)
    torch.manual_seed(0)
    given = [
        torch.randn(node.meta["val"].shape) / 4
        for node in made.module.graph.find_nodes(op="placeholder")
    ]
    counts = len(made.arg_indices), len(made.prologue_indices)
    unread = torch.empty(0)
    args = [unread] * (1 + max(made.arg_indices))
    values = [unread] * (1 + max(made.prologue_indices, default=0))
    for at, value in zip(made.arg_indices, given, strict=False):
        args[at] = value
    for at, value in zip(made.prologue_indices, given[counts[0] :], strict=False):
        values[at] = value
    slots = given[sum(counts) :]
    found, wanted = (engine(args, values, slots)[0][0] for engine in (native, EagerEngine(made)))
    assert torch.equal(found, wanted) == reused
    assert found.stride() == wanted.stride()
    assert float((found - wanted).norm() / wanted.norm()) < BOUND


def test_lowering_native_says_what_it_lacks(monkeypatch: Any) -> None:
    monkeypatch.setenv("TURBO4D_ROW_KERNELS", "0")
    with pytest.raises(LowerError) as raised:
        lower(variant(COMPUTE), get_lowering("native"))
    assert str(raised.value) == (
        "lowering 'native' cannot take variant 'compute': TURBO4D_ROW_KERNELS is 0."
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.empty(3, dtype=torch.bfloat16), "its kernels take float32, and values are bf16"),
        (torch.empty(3, device="meta"), "its kernels run on a CPU, and values are on 'meta'"),
    ],
)
def test_lowering_native_refuses_another_type_or_device(value: Tensor, reason: str) -> None:
    made = variant(COMPUTE)
    graph = copy.deepcopy(made.module.graph)
    graph.find_nodes(op="placeholder")[0].meta["val"] = value
    other = replace(made, module=fx.GraphModule(made.module, graph))
    assert get_lowering("native").supports(other) == (reason,)
