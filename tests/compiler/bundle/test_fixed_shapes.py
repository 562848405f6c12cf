"""Open sizes asked of a target, in every way there is: one sentence before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from turbo4d.compiler.bundle.fixed_shapes import OPEN_SETTINGS, refuse_open
from turbo4d.compiler.bundle.targets import TARGETS, target_of
from turbo4d.runtime.errors import OptionError

import turbo4d
from tests.compiler.bundle.networks import SIGMAS, network


class Halves(nn.Module):
    def forward(self, x: Tensor, more: dict[str, list[Tensor]]) -> Tensor:
        return x + more["a"][0]


def said(*args: Any, module: Any = None, **kwargs: Any) -> str:
    with pytest.raises(OptionError) as caught:
        refuse_open("onnxruntime", module or nn.Identity(), args, kwargs)
    start, end = (
        "target 'onnxruntime' has fixed shapes, and ",
        ", and build a bundle for each shape.",
    )
    text = str(caught.value)
    assert text.startswith(start), text
    assert text.endswith(end), text
    return text.removeprefix(start).removesuffix(end)


def marked(mark: Any, axis: int = 0) -> Tensor:
    value = torch.zeros(4, 4)
    mark(value, axis)
    return value


@pytest.mark.parametrize("name", ["mark_dynamic", "mark_unbacked"])
def test_a_marked_tensor_is_named_by_its_place(name: str) -> None:
    value = marked(getattr(torch._dynamo.decorators, name), 1)
    end = "is marked dynamic; give a tensor without the mark"
    assert said(x=value) == f"axis 1 of input 'x' {end}"
    assert said(torch.zeros(1), value) == f"axis 1 of input 1 {end}"
    assert said(x={"a": [value]}) == f"axis 1 of input 'x'['a'][0] {end}"


def test_a_mark_that_lets_a_size_be_fixed_is_no_wish() -> None:
    value = marked(torch._dynamo.maybe_mark_dynamic)
    refuse_open("onnxruntime", nn.Identity(), (value,), {"x": value})


def test_a_symbol_is_no_size() -> None:
    open_size = torch.export.Dim("n", min=2, max=64)
    call = (torch.zeros(4, 4), {"a": [torch.zeros(4, 4)]})
    shapes = ({0: open_size}, {"a": [{0: open_size}]})
    program = torch.export.export(Halves(), call, dynamic_shapes=shapes)
    symbolic: Tensor = program.graph.find_nodes(op="placeholder")[0].meta["val"]
    size = symbolic.shape[0]
    assert said(symbolic) == f"axis 0 of input 0 is the symbol {size}; give a tensor of numbers"
    assert said(n=size) == f"input 'n' is the symbol {size}; give a number"
    exported = said(module=program.module())
    assert exported == "the module was exported with open sizes of 'x'; export it without"
    fixed = torch.export.export(Halves(), call).module()
    refuse_open("onnxruntime", fixed, call, None)
    with pytest.raises(OptionError) as caught:
        refuse_open("onnxruntime", program, call, None)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "the module is an ExportedProgram; hand over the nn.Module that it was exported of."
    )


def test_the_word_of_torch_export_is_understood(tmp_path: Path) -> None:
    module, call = network()
    with pytest.raises(OptionError) as caught:
        turbo4d.build(
            module, kwargs=call, levels=SIGMAS, target="aot-inductor", out=tmp_path / "bundle",
            dynamic_shapes={"x": {0: torch.export.Dim("images")}},
        )  # fmt: skip
    assert str(caught.value) == (
        "target 'aot-inductor' has fixed shapes, and dynamic_shapes asks for others; leave it out, "
        "and build a bundle for each shape."
    )
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_target_has_a_setting_that_opens_sizes(name: str) -> None:
    for setting in OPEN_SETTINGS:
        with pytest.raises(OptionError) as caught:
            target_of(name, {setting: "yes"})
        assert str(caught.value) == (
            f"target {name!r} has fixed shapes, and setting {setting!r} asks for others; leave "
            "it out, and build a bundle for each shape."
        )
