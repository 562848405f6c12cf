"""hoist: what goes into the prologue, what stays in the step, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.ir import Capture
from turbo4d.compiler.lower.eager import EagerPrologue
from turbo4d.compiler.prologue import REPEAT_BYTES, Prologue, hoist
from turbo4d.compiler.verify import verify

from tests.support import flat_args, fork, nodes_of

aten = torch.ops.aten


class Model(nn.Module):
    """The sample x, conditioning c, one weight matrix and a gate; `forward` is the test's."""

    def __init__(self, forward: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(4, 4)
        self.gate = nn.Parameter(torch.randn(1))
        self.body = forward

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.body(self, x, c)  # type: ignore[operator]


@dataclass(frozen=True)
class Split:
    """A model split in two, with the arguments of one call."""

    model: Model
    capture: Capture
    step: fx.GraphModule
    prologue: Prologue
    inputs: tuple[Tensor, Tensor]

    def run(self, x: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        args = flat_args(self.capture, self.inputs if x is None else (x, self.inputs[1]))
        held = EagerPrologue(self.prologue)(args)
        with torch.no_grad():
            (output,) = self.step(*args, *held)
        return output, held


def split(
    body: object,
    inputs: tuple[Tensor, Tensor] | None = None,
    varying: Sequence[str] = ("i_x",),
    channels: Mapping[str, tuple[tuple[int, int], ...]] | None = None,
) -> Split:
    """Hoist, and check what must hold for every model."""
    torch.manual_seed(1)
    inputs = inputs or (torch.randn(3, 4), torch.randn(3, 4))
    model = Model(body).eval()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    names = [row.name for row in capture.table]
    prologue = hoist(gm, [row.name for row in capture.inputs], varying, channels)
    verify(gm, inputs=[*names, *(f"prologue_{name}" for name in prologue.names)], full=True)
    verify(prologue.module, inputs=[names[i] for i in prologue.arg_indices], full=True)
    done = Split(model, capture, gm, prologue, inputs)
    output, held = done.run()
    with torch.no_grad():
        assert torch.equal(output, model(*inputs))
    assert [value.numel() * value.element_size() for value in held] == [*prologue.sizes]
    assert prologue.size_bytes == sum(prologue.sizes)
    storages = [value.untyped_storage() for value in held]
    assert [storage.nbytes() for storage in storages] == [*prologue.sizes]
    given = {tensor.untyped_storage().data_ptr() for tensor in flat_args(capture, inputs)}
    assert given.isdisjoint(storage.data_ptr() for storage in storages)
    return done


def test_what_depends_on_conditioning_alone_is_computed_in_the_prologue() -> None:
    done = split(lambda model, x, c: x * model.project(c).tanh() + c.sin())
    assert done.prologue.names == ("tanh", "sin")
    assert done.prologue.constants == frozenset()
    assert done.prologue.flops == 2 * 3 * 4 * 4
    assert count_flops(done.step.graph) == {}
    left = [node.target for node in done.step.graph.nodes if node.op == "call_function"]
    assert left == [aten.mul.Tensor, aten.add.Tensor]


def test_expressions_of_weights_and_constants_are_counted_apart() -> None:
    def body(model: Model, x: Tensor, c: Tensor) -> Tensor:
        order = torch.arange(4, dtype=x.dtype)
        return x * model.gate.sigmoid() + model.project(order) + c.cos()

    done = split(body)
    assert set(done.prologue.names) == {"sigmoid", "linear", "cos"}
    assert done.prologue.constants == {"sigmoid", "linear"}


def test_a_weight_that_is_loaded_again_takes_effect() -> None:
    """Nothing of a weight is baked into a graph."""
    done = split(lambda model, x, c: x * model.gate.sigmoid())
    before, _ = done.run()
    with torch.no_grad():
        done.model.gate.fill_(3.0)
        after, _ = done.run()
        assert torch.equal(after, done.model(*done.inputs))
    assert not torch.equal(before, after)


@pytest.mark.parametrize(
    "body",
    [
        lambda model, x, c: x * model.gate,
        lambda model, x, c: F.linear(x, model.project.weight.T),
        lambda model, x, c: x + c[:, None].expand(3, 2, 4).permute(1, 0, 2),
    ],
    ids=["weight", "view of a weight", "view of an input"],
)
def test_views_of_weights_and_inputs_are_not_hoisted(body: object) -> None:
    assert split(body).prologue.names == ()


def test_views_of_one_hoisted_value_are_views_at_the_step() -> None:
    """The two halves of a modulation are read of one value, held once."""

    def body(model: Model, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = model.project(c).chunk(2, -1)
        return x[:, :2] * scale + shift

    done = split(body)
    assert done.prologue.names == ("linear",)
    assert len(nodes_of(done.step.graph, aten.slice.Tensor)) == 3


def test_a_repeat_is_not_held_repeated() -> None:
    done = split(lambda model, x, c: x.unsqueeze(0) + model.project(c).expand(50, 3, 4))
    assert done.prologue.names == ("linear",)
    assert done.prologue.size_bytes == 3 * 4 * 4
    assert len(nodes_of(done.step.graph, aten.expand.default)) == 1


@pytest.mark.parametrize("large", [False, True])
def test_a_repeated_copy_is_held_up_to_a_size(large: bool) -> None:
    times = REPEAT_BYTES // (3 * 4 * 4) + 1 if large else 10

    def body(model: Model, x: Tensor, c: Tensor) -> Tensor:
        wide = model.project(c).expand(times, 3, 4).clone(memory_format=torch.contiguous_format)
        return x.sum() * wide

    done = split(body)
    assert done.prologue.names == (("linear",) if large else ("clone",))
    assert len(nodes_of(done.step.graph, aten.clone.default)) == large


def test_an_output_that_no_sample_reaches_is_the_callers_own() -> None:
    done = split(lambda model, x, c: model.project(c))
    output, (held,) = done.run()
    assert torch.equal(output, held)
    assert output.data_ptr() != held.data_ptr()


def test_the_prologue_reads_neither_sample_nor_level() -> None:
    """Whatever they are, its values are the same to the bit."""

    def body(model: Model, x: Tensor, c: Tensor) -> Tensor:
        return (x + model.project(c)) * model.project(c.sin() + 1).exp()

    done = split(body)
    rows = done.capture.table
    assert "i_x" not in [rows[i].name for i in done.prologue.arg_indices]
    first = done.run()[1]
    again = done.run(torch.full((3, 4), torch.nan))[1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_an_input_that_varies_keeps_all_that_it_reaches() -> None:
    done = split(lambda model, x, c: x + model.project(c).sin(), varying=("i_x", "i_c"))
    assert done.prologue.names == ()
    assert done.prologue.module.code.count("linear") == 0
    assert EagerPrologue(done.prologue)(flat_args(done.capture, done.inputs)) == ()


def test_slices_of_declared_channels_are_hoisted() -> None:
    def body(model: Model, x: Tensor, c: Tensor) -> Tensor:
        return x[:, 1:3].sin().sum() + x[:, 2:4].cos() + c.sum() * 0

    done = split(body, channels={"i_x": ((1, 3),)})
    assert "cos" not in done.prologue.names
    assert "sum_1" in done.prologue.names
