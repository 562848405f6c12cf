"""writing: what every rule is given, and the few things that most rules write.

Half types are computed with where torch computes with them. What torch accumulates wider (norms,
softmax, sums) stands in the graph as float32 between two casts, so that a strongly typed engine has
no choice in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, fx

aten = torch.ops.aten
HALVES = (torch.float16, torch.bfloat16)
Shape = tuple[int, ...]


class Writer(Protocol):
    """Where a rule writes to."""

    def name(self, value: fx.Node) -> str:
        """What a value of the graph is called."""
        ...

    def constant(self, value: Tensor) -> str:
        """The name of a constant."""
        ...

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Write an ONNX node with one result; gives its name."""
        ...

    def add_several(
        self, kind: str, inputs: Sequence[str], count: int, **attributes: Any
    ) -> tuple[str, ...]:
        """Write an ONNX node with several results; gives their names."""
        ...


Rule = Callable[[Writer, fx.Node], str | tuple[str, ...]]
"""Writes a call, at least one node of it; gives the name of its result, or of each result."""

Reason = Callable[[fx.Node], str | None]
"""Why a call cannot be written as it is; None where it can."""


def shape_of(node: Any) -> Shape:
    """Of a value, as fixed numbers."""
    return tuple(int(side) for side in node.meta["val"].shape)


def side_of(node: Any, axis: Any) -> int:
    """Of a value, along one axis."""
    return int(node.meta["val"].shape[axis])


def dtype_of(node: Any) -> torch.dtype:
    """Of a value."""
    return node.meta["val"].dtype


def args_of(node: fx.Node) -> Sequence[Any]:
    """A call's positional arguments, each as the operator's schema has it."""
    return node.args


def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """An argument by its place or its name; the default also where it is None."""
    given = args_of(node)
    value: Any = given[position] if len(given) > position else node.kwargs.get(name)
    return default if value is None else value


def wide(dtype: torch.dtype) -> torch.dtype:
    """What torch accumulates in: float32 for the half types, else the dtype itself."""
    return torch.float32 if dtype in HALVES else dtype


def cast(w: Writer, name: str, given: torch.dtype, wanted: torch.dtype) -> str:
    """A value in another dtype; itself where it has it."""
    return name if given == wanted else w.add("Cast", [name], to=wanted)


def operand(w: Writer, given: Any, dtype: torch.dtype) -> str:
    """A tensor or a number, in this dtype."""
    if not isinstance(given, fx.Node):
        return w.constant(torch.tensor(given, dtype=dtype))
    return cast(w, w.name(given), dtype_of(given), dtype)


def source(w: Writer, node: fx.Node) -> str:
    """The first tensor of a call."""
    return w.name(node.all_input_nodes[0])


def ints(w: Writer, values: Sequence[int]) -> str:
    """Numbers that say a shape, axes or positions."""
    return w.constant(torch.tensor([*values], dtype=torch.int64))


def number(w: Writer, value: float | bool, dtype: torch.dtype) -> str:
    """A scalar."""
    return w.constant(torch.tensor(value, dtype=dtype))


def reshaped(w: Writer, name: str, shape: Sequence[int]) -> str:
    """A value in another shape."""
    return w.add("Reshape", [name, ints(w, shape)])


def each(value: Any, rank: int) -> list[int]:
    """One number for each dimension, of a number, a list of one, or a list of all."""
    sides: list[int] = [value] if isinstance(value, int) else [*value]
    return sides * rank if len(sides) == 1 else sides


def axes_of(given: Any, rank: int) -> list[int]:
    """The axes that an argument names, from 0; all of them where it names none."""
    named = [given] if isinstance(given, int) else [*(given or range(rank))]
    return [axis % rank for axis in named] if rank else []
