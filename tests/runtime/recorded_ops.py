"""A stand-in for CUDA graphs: records the operators of a function, and replays them in place.

As the device's own, recording runs nothing that can be read afterwards, refuses what waits for the
device, and a replay writes over whatever an earlier one of the same pool gave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from turbo4d.runtime.cuda_recorder import Results

aten = torch.ops.aten
WAITS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default}


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@dataclass
class Recorded:
    pool: StandIn
    ops: list[tuple[Any, Any, Any, Any]]
    results: Results
    made: list[Tensor]
    replays: int = 0

    def replay(self) -> None:
        self.pool.spoil()
        self.replays += 1
        for function, args, kwargs, outs in self.ops:
            again = function(*args, **kwargs)
            given = {storage(each) for each in tree_leaves((args, kwargs)) if is_tensor(each)}
            for out, new in zip(tree_leaves(outs), tree_leaves(again), strict=True):
                if is_tensor(out) and storage(out) not in given:
                    out.copy_(new)


class Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in WAITS:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        outs = func(*args, **(kwargs or {}))
        self.ops.append((func, args, kwargs or {}, outs))
        return outs


@dataclass
class StandIn:
    """A recorder on the CPU."""

    device: torch.device
    recordings: list[Recorded] = field(default_factory=list)
    ordered: int = 0

    def record(self, function: Callable[[], Results]) -> Recorded:
        # A replay here writes into tensors, where the device's writes into memory.
        with torch.inference_mode(False), torch.no_grad(), Recording() as recording:
            results = function()
        first: dict[int, Tensor] = {}
        for op in recording.ops:
            given = {storage(each) for each in tree_leaves(op[1:3]) if is_tensor(each)}
            for each in tree_leaves(op[3]):
                if is_tensor(each) and storage(each) not in given:
                    first.setdefault(storage(each), each)
        self.recordings.append(Recorded(self, recording.ops, results, [*first.values()]))
        self.spoil()
        return self.recordings[-1]

    def spoil(self) -> None:
        for recorded in self.recordings:
            for tensor in recorded.made:
                if tensor.is_floating_point():
                    tensor.fill_(float("nan"))

    def order(self) -> None:
        self.ordered += 1

    def replayed(self) -> None:
        pass

    @property
    def replays(self) -> int:
        return sum(recorded.replays for recorded in self.recordings)


def is_tensor(leaf: object) -> bool:
    return isinstance(leaf, Tensor)
