"""bypass-region: fires, refuses, idles, composes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.verify import verify
from turbo4d.passes import BypassRegion, PassError
from turbo4d.passes.base import returned

from tests.passes.stream import make_stream
from tests.support import assert_idle, assert_rewrite, flat_args, fork, nodes_of

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
FIRST = BypassRegion("first", "linear", "add")
CROSS = BypassRegion("cross", "add", "add_1")


def test_what_comes_in_goes_on() -> None:
    model, inputs = make_stream()
    with torch.no_grad():
        hidden = model.into(inputs[0])
        expected = model.out(hidden + model.cross(hidden, inputs[1]))
    assert_rewrite(
        FIRST,
        model,
        inputs,
        fires=1,
        gone={SDPA: 1, aten.add.Tensor: 1, aten.linear.default: 4, aten.layer_norm.default: 1},
        stays={SDPA: 1, aten.add.Tensor: 1},
        golden="bypass_region",
        expected=[expected],
        atol=0,
        rtol=0,
    )


class Turned(nn.Module):
    """Its middle keeps the shape and changes the strides."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = x.sin()
        after = before.transpose(1, 2).cos()
        return after.tanh().exp()


def test_strides_downstream_follow() -> None:
    x = torch.randn(2, 3, 3)
    done = assert_rewrite(
        BypassRegion("middle", "sin", "cos"),
        Turned().eval(),
        [x],
        fires=1,
        gone={aten.cos.default: 1, aten.permute.default: 1},
        stays={},
        golden=None,
        expected=[x.sin().tanh().exp()],
        atol=0,
        rtol=0,
    )
    assert returned(done.module.graph)[0].meta["val"].stride() == (9, 3, 1)


def test_an_output_that_is_an_input_is_cloned() -> None:
    x = torch.randn(2, 3, 3)
    done = assert_rewrite(
        BypassRegion("all", "i_x", "exp"),
        Turned().eval(),
        [x],
        fires=1,
        gone={aten.exp.default: 1},
        stays={aten.clone.default: 1},
        golden=None,
        expected=[x],
        atol=0,
        rtol=0,
    )
    assert done.outputs[0].data_ptr() != x.data_ptr()


def test_refuses_another_shape() -> None:
    model, inputs = make_stream()
    gm = fork(capture_export(model, inputs).module)
    with pytest.raises(PassError) as caught:
        BypassRegion("first", "i_x", "add")(gm)
    assert str(caught.value) == (
        "bypass-region at %add (first): the entry is float64[2, 5, 4] and the exit "
        "float64[2, 5, 8]; a region left out must agree in both. "
        "Bypass a smaller region, or reuse this one."
    )
    assert "%i_x" in caught.value.__notes__[0]


def test_refuses_another_dtype() -> None:
    class Cast(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sin().to(torch.float64)

    gm = fork(capture_export(Cast().eval(), (torch.randn(3),)).module)
    with pytest.raises(PassError, match=r"the entry is float32\[3\] and the exit float64\[3\]"):
        BypassRegion("cast", "i_x", nodes_of(gm.graph, aten._to_copy.default)[0].name)(gm)


def test_idles_on_an_empty_region() -> None:
    model, inputs = make_stream()
    report = assert_idle(BypassRegion("none", "add", "add"), capture_export(model, inputs).module)
    assert [skip.reason for skip in report.skipped] == ["the region is empty"]


def test_composes_with_the_region_before_it() -> None:
    """The second region's entry is the first one's exit: last first, as ALL_PASSES says."""
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    CROSS(gm)
    FIRST(gm)
    verify(gm, inputs=[row.name for row in capture.table], full=True)
    with torch.no_grad():
        (got,) = gm(*flat_args(capture, inputs))
        torch.testing.assert_close(got, model.out(model.into(inputs[0])), atol=0, rtol=0)
    with pytest.raises(PassError, match="no such node"):
        CROSS(gm)
