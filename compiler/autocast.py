"""autocast: the casts that an autocast makes, written into the graph.

    rewrite:  %y = linear(%x, %w)                            # traced where autocast is on
       ->     %x' = _to_copy(%x, bfloat16); %w' = _to_copy(%w, bfloat16); %y = linear(%x', %w')

Requires  a graph traced before dispatch, in which a cast of autocast does not show. Every node has
          its true `meta["val"]`.
Ensures   without any autocast around it the graph gives the same bits; a value is cast to a dtype
          once, as autocast's own cache does for weights.
Error     exact.

Which operators cast what to which dtype is torch's own table, and differs between devices. So it is
asked: each call is made once more on tensors without data, and what torch copies to another dtype
before it calls anything else is what it casts.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, fx
from turbo4d.compiler import autocast_compat, compat
from turbo4d.compiler.errors import CaptureError

aten = torch.ops.aten
DEVICES = ("cpu", "cuda")
_Cast = Mapping[fx.Node, torch.dtype]


def autocast_on() -> bool:
    """Whether any autocast is on."""
    return any(torch.is_autocast_enabled(device) for device in DEVICES)


@contextmanager
def without_autocast() -> Generator[None]:
    """A context in which none is on."""
    with ExitStack() as stack:
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def write_casts(traced: fx.GraphModule) -> None:
    """Write the casts into a graph that was traced under autocast, or that turns one on or off.

    Args:
        traced: changed in place; the autocast that is on now was on around the trace.

    Raises:
        CaptureError: an operator whose casts cannot be told.
    """
    switches = any(autocast_compat.switches_autocast(node.target) for node in traced.graph.nodes)
    if not switches and not autocast_on():
        return
    written: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}
    with autocast_compat.following_autocast() as follow:
        for node in [*traced.graph.nodes]:
            if follow(node) or not autocast_on() or not compat.is_operator(node.target):
                continue
            for source, dtype in _casts(node).items():
                if (source, dtype) not in written:
                    written[source, dtype] = _cast(node, source, dtype)
                node.replace_input_with(source, written[source, dtype])
    traced.recompile()


def _casts(node: fx.Node) -> _Cast:
    """What torch casts for a call before it does anything else.

    Raises:
        CaptureError: where what it copies does not explain the dtype of what it gave.
    """
    made = autocast_compat.copies_in(node.target, *_arguments(node, {}))
    of = {id(source.meta["val"]): source for source in node.all_input_nodes}
    casts = {of[tensor]: dtype for tensor, dtype in made.items() if tensor in of}
    # Some operators copy to another dtype on their own account, and give what they were given.
    for explained in (casts, {}) if casts else ():
        if _dtypes(_called(node, explained)) == _dtypes(node.meta["val"]):
            return explained
    if casts:
        raise CaptureError(
            f"%{node.name} ({node.target}) gives {_dtypes(node.meta['val'])[0]} under autocast, "
            "which no cast of what it takes explains. Convert the model with model.to(dtype) and "
            "leave autocast out."
        )
    return {}


def _called(node: fx.Node, casts: _Cast) -> object:
    target: Any = node.target
    args, kwargs = _arguments(node, casts)
    with torch.no_grad(), without_autocast():
        return target(*args, **kwargs)


def _dtypes(value: object) -> list[torch.dtype]:
    values = cast("Sequence[Any]", value) if isinstance(value, tuple | list) else (value,)
    return [one.dtype for one in values if isinstance(one, Tensor)]


def _arguments(node: fx.Node, casts: _Cast) -> tuple[Any, Any]:
    def value(source: fx.Node) -> Any:
        held = source.meta["val"]
        return held.to(casts[source]) if source in casts else held

    with without_autocast():
        return fx.map_arg(node.args, value), fx.map_arg(node.kwargs, value)


def _cast(node: fx.Node, source: fx.Node, dtype: torch.dtype) -> fx.Node:
    with node.graph.inserting_before(node):
        cast = node.graph.call_function(aten._to_copy.default, (source,), {"dtype": dtype})
    cast.meta.update(node.meta)
    with torch.no_grad(), without_autocast():
        cast.meta["val"] = source.meta["val"].to(dtype)
    return cast
