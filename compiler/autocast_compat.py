# pyright: reportPrivateUsage=false
"""Everything private of torch's autocast that the compiler uses, with what it relies on.

Written against torch 2.13.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch.utils._python_dispatch import TorchDispatchMode

_AMP: Any = torch.amp


def switching(module: fx.GraphModule) -> fx.GraphModule:
    """The graph with its switches of autocast such that a trace carries them out.

    Relies on a trace noting `torch.amp._enter_autocast` without a switch, but both of
    `torch.autocast`.
    """
    instead: dict[Any, Any] = {_AMP._enter_autocast: _enter, _AMP._exit_autocast: _exit}
    if not any(node.target in instead for node in module.graph.nodes):
        return module
    changed = fx.GraphModule(module, copy.deepcopy(module.graph))
    for node in changed.graph.nodes:
        node.target = instead.get(node.target, node.target)
    changed.recompile()
    return changed


def _enter(device: str, *how: Any) -> torch.autocast:
    mode = torch.autocast(device, *how)
    mode.__enter__()
    return mode


def _exit(mode: torch.autocast) -> None:
    mode.__exit__(None, None, None)


def switches_autocast(target: object) -> bool:
    """Whether a node's target enters or leaves an autocast.

    Relies on the two functions by which a trace before dispatch notes both.
    """
    return target in (_AMP._enter_autocast, _AMP._exit_autocast)


@contextmanager
def following_autocast() -> Generator[Callable[[fx.Node], bool]]:
    """A context that gives a function: told the nodes of a graph in order, it switches as they do.

    The function says whether a node was a switch. What is left open is closed in the end.
    """
    entered: dict[fx.Node, Any] = {}

    def follow(node: fx.Node) -> bool:
        if node.target is _AMP._enter_autocast:
            entered[node] = _AMP._enter_autocast(*node.args)
        elif node.target is _AMP._exit_autocast:
            opened: Any = node.args[0]
            _AMP._exit_autocast(entered.pop(opened))
        else:
            return False
        return True

    try:
        yield follow
    finally:
        for mode in reversed(entered.values()):
            _AMP._exit_autocast(mode)


class _CopyWatch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.found: dict[int, torch.dtype] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func is torch.ops.aten._to_copy.default and "dtype" in (kwargs or {}):
            self.found.setdefault(id(args[0]), kwargs["dtype"])
        return func(*args, **(kwargs or {}))


def copies_in(op: Any, args: Any, kwargs: Any) -> dict[int, torch.dtype]:
    """The first dtype that a call copies each tensor to, by the tensor's `id`.

    Relies on a dispatch mode seeing what autocast calls below it. Its cache, which keeps casts of
    weights, is off meanwhile.
    """
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad(), _CopyWatch() as watch:
            op(*args, **kwargs)
    finally:
        torch.set_autocast_cache_enabled(cached)
    return watch.found
