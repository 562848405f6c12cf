"""split-invariant-input: fires, refuses, idles, composes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.prologue import hoist
from turbo4d.passes import PassError, RecordSlot, SplitInvariantInput
from turbo4d.passes.split_invariant_input import complement

from tests.support import assert_idle, assert_rewrite, flat_args, fork, nodes_of

aten = torch.ops.aten
CHANNELS = 6
FIXED = ((1, 2), (4, 6))
CHANGING = ((0, 1), (2, 4))


class First(nn.Module):
    """What reads the input first."""

    def __init__(self, layer: nn.Module, before: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.before = before or (lambda x: x)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.before(x)).sin()


def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, CHANNELS, 5, 5, dtype=torch.float64)


def rows() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(5, CHANNELS, dtype=torch.float64)


def picked(value: Tensor, ranges: tuple[tuple[int, int], ...], axis: int) -> Tensor:
    """Only some channels, the others zero."""
    mask = torch.zeros(value.shape[axis], dtype=value.dtype)
    for start, stop in ranges:
        mask[start:stop] = 1
    return value * mask.view([-1 if at == axis else 1 for at in range(value.dim())])


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_is_the_sum_of_its_channels_shares(bias: bool) -> None:
    layer = nn.Conv2d(CHANNELS, 3, 3, stride=2, padding=1, bias=bias).double()
    x = images()
    with torch.no_grad():
        fixed, changing = (
            F.conv2d(picked(x, part, 1), layer.weight, None, 2, 1) for part in (FIXED, CHANGING)
        )
        offset = 0 if layer.bias is None else layer.bias[:, None, None]
        expected = (fixed + changing + offset).sin()
    done = assert_rewrite(
        SplitInvariantInput("i_x", FIXED),
        First(layer).eval(),
        [x],
        fires=1,
        gone={aten.conv2d.default: -1},
        stays={aten.conv2d.default: 2, aten.add.Tensor: 1},
        golden="split_invariant_input" if bias else None,
        expected=[expected],
        atol=1e-14,
        rtol=1e-12,
    )
    first, second = nodes_of(done.module.graph, aten.conv2d.default)
    read = [node.all_input_nodes[0].meta["val"].shape[1] for node in (first, second)]
    assert read == [3, 3]
    assert (first.args[2], second.args[2] is not None) == (None, bias)


def test_a_linear_is_split() -> None:
    layer = nn.Linear(CHANNELS, 3).double()
    x = rows()
    with torch.no_grad():
        shares = [picked(x, part, 1) @ layer.weight.T for part in (FIXED, CHANGING)]
        expected = (shares[0] + shares[1] + layer.bias).sin()
    assert_rewrite(
        SplitInvariantInput("i_x", FIXED),
        First(layer).eval(),
        [x],
        fires=1,
        gone={aten.linear.default: -1},
        stays={aten.linear.default: 2},
        golden=None,
        expected=[expected],
        atol=1e-14,
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("module", "x", "reason"),
    [
        (
            First(nn.Identity()),
            images(),
            "it is aten.sin.default; only a convolution or a linear can be split",
        ),
        (First(nn.Conv2d(CHANNELS, 6, 1, groups=2).double()), images(), "it has 2 groups"),
        (
            First(nn.Linear(5, 3).double()),
            images(),
            "it takes products over axis 3, the channels are axis 1",
        ),
        (
            First(nn.Conv2d(CHANNELS, 3, 1).double(), lambda x: x.flip(0)),
            images(),
            "it is aten.flip.default; only a convolution or a linear can be split",
        ),
    ],
)
def test_refuses(module: nn.Module, x: Tensor, reason: str) -> None:
    captured = capture_export(module.eval(), (x,)).module
    report = assert_idle(SplitInvariantInput("i_x", FIXED), captured)
    assert [skip.reason for skip in report.skipped] == [reason]


@pytest.mark.parametrize("fixed", [((0, CHANNELS),), ((4, CHANNELS + 1),)])
def test_refuses_channels_that_are_all_or_none_of_the_input(
    fixed: tuple[tuple[int, int], ...],
) -> None:
    gm = fork(capture_export(First(nn.Conv2d(CHANNELS, 3, 1).double()).eval(), (images(),)).module)
    with pytest.raises(PassError, match=r"^split-invariant-input at %i_x: it has 6 channels and"):
        SplitInvariantInput("i_x", fixed)(gm)


def test_idles_where_the_input_is_split_already() -> None:
    gm = fork(capture_export(First(nn.Conv2d(CHANNELS, 3, 1).double()).eval(), (images(),)).module)
    SplitInvariantInput("i_x", FIXED)(gm)
    report = assert_idle(SplitInvariantInput("i_x", FIXED), gm)
    assert len(report.skipped) == 4  # slices


def test_composes_with_hoisting() -> None:
    """What the fixed channels add is in the prologue, and their values are read nowhere else."""
    layer = nn.Conv2d(CHANNELS, 3, 3).double()
    capture = capture_export(First(layer).eval(), (images(),))
    gm = fork(capture.module)
    SplitInvariantInput("i_x", FIXED)(gm)
    prologue = hoist(gm, ["i_x"], ["i_x"], {"i_x": FIXED})
    assert len(nodes_of(gm.graph, aten.conv2d.default)) == 1
    assert len(nodes_of(prologue.module.graph, aten.conv2d.default)) == 1
    args = flat_args(capture, [images()])
    at = [row.name for row in capture.table].index("i_x")
    with torch.no_grad():
        held = prologue.module(*(args[i] for i in prologue.arg_indices))
        args[at] = picked(images(), FIXED, 1) + picked(torch.randn_like(images()), CHANGING, 1)
        again = prologue.module(*(args[i] for i in prologue.arg_indices))
        assert all(torch.equal(a, b) for a, b in zip(held, again, strict=True))
        (got,) = gm(*args, *held)
        torch.testing.assert_close(got, layer(args[at]).sin(), atol=1e-14, rtol=1e-12)


def test_composes_with_recording_the_product_by_its_name() -> None:
    capture = capture_export(First(nn.Conv2d(CHANNELS, 3, 1).double()).eval(), (images(),))
    gm = fork(capture.module)
    SplitInvariantInput("i_x", FIXED)(gm)
    RecordSlot("core", "conv2d")(gm)
    with torch.no_grad():
        out, slot = gm(*flat_args(capture, [images()]))
    assert torch.equal(slot.sin(), out)


@given(st.sets(st.integers(0, 9)), st.integers(10, 12))
def test_complement(channels: set[int], count: int) -> None:
    ranges = tuple((channel, channel + 1) for channel in sorted(channels))
    left = {channel for start, stop in complement(ranges, count) for channel in range(start, stop)}
    assert left == set(range(count)) - channels
