"""fixed-shapes: a bundle is for the shapes of one call, whoever asks for others.

Every target compiles for fixed sizes: slots and plan are of one geometry, and so are the engines.
Sizes are asked to be open by `dynamic_shapes` (torch.export's word), by a mark on a tensor
(`torch._dynamo.mark_dynamic`, `mark_unbacked`), by a size that is a symbol, by a module that was
exported with open sizes, or by a setting (`OPEN_SETTINGS`). `maybe_mark_dynamic` lets a size be
fixed, so that one is no such wish.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from turbo4d.compiler.compat import flatten_with_path
from turbo4d.compiler.dynamo_compat import marked_open
from turbo4d.runtime.errors import OptionError

OPEN_SETTINGS = frozenset(
    {"dynamic", "dynamic_batch", "dynamic_shapes", "max_shapes", "min_shapes", "opt_shapes",
     "optimization_profiles", "profiles"}
)  # fmt: skip
"""What other tools call a setting that opens sizes; no target of ours has one."""


def refuse_open(
    target: str,
    module: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: object = None,
) -> None:
    """Refuse a build that asks for open sizes.

    Args:
        target: as it was named.
        module: that is built.
        args: positional arguments of its call.
        kwargs: keyword arguments of it.
        dynamic_shapes: as torch.export has it.

    Raises:
        OptionError: naming what asks, or a module that is none.
    """
    if isinstance(module, ExportedProgram):
        raise OptionError(
            "the module is an ExportedProgram; hand over the nn.Module that it was exported of."
        )
    if (asked := next(_asked(module, args, kwargs or {}, dynamic_shapes), None)) is not None:
        raise OptionError(open_text(target, asked))


def open_text(target: str, asked: str) -> str:
    """The refusal.

    Args:
        target: as it was named.
        asked: what asks, and how to unsay it, as two clauses.
    """
    return f"target {target!r} has fixed shapes, and {asked}, and build a bundle for each shape."


def _asked(
    module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: object
) -> Iterator[str]:
    if dynamic_shapes is not None:
        yield "dynamic_shapes asks for others; leave it out"
    for path, value in flatten_with_path((list(args), dict(kwargs))):
        if isinstance(value, torch.SymInt):
            yield f"{_said(path)} is the symbol {value}; give a number"
        if isinstance(value, Tensor):
            yield from (f"axis {axis} of {_said(path)} {how}" for axis, how in _open_axes(value))
    if isinstance(module, fx.GraphModule):
        for node in module.graph.find_nodes(op="placeholder"):
            value = node.meta.get("val")
            if isinstance(value, Tensor) and any(_open_axes(value)):
                yield f"the module was exported with open sizes of {node.name!r}; export it without"


def _open_axes(value: Tensor) -> Iterator[tuple[int, str]]:
    for axis, size in enumerate(value.shape):
        if isinstance(size, torch.SymInt):
            yield axis, f"is the symbol {size}; give a tensor of numbers"
    for axis in marked_open(value):
        yield axis, "is marked dynamic; give a tensor without the mark"


def _said(path: Sequence[Any]) -> str:
    """A leaf of (args, kwargs), by its place."""
    kind, *rest = (getattr(key, "idx", getattr(key, "key", key)) for key in path)
    first, *inner = rest
    named = f"input {first!r}" if kind else f"input {first}"
    return named + "".join(f"[{each!r}]" for each in inner)
