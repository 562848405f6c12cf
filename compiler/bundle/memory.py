"""memory: what running a bundle takes at most, told from its graphs before anything is built.

Weights, each once; the prologue's values of every stream; the slots, as the plan's proof bounds
them; and what the widest graph holds inside at any time, each value freed after its last reader. An
engine's own workspace is not in it: no graph tells that, and it is what a device needs besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx
from turbo4d.compiler.fresh_memory import last_readers
from turbo4d.compiler.traffic import is_view, value_bytes
from turbo4d.passes.base import COND
from turbo4d.runtime.errors import MemoryPlanError

from .parts import Parts


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes, by what they are for.

    Args:
        weights: each once.
        prologue: the values of all streams.
        slots: that all streams hold together at most.
        inside: what each graph holds at most while it runs, its results included, by name.
    """

    weights: int
    prologue: int
    slots: int
    inside: Mapping[str, int]

    @property
    def widest(self) -> str:
        """The graph that holds most."""
        return max(self.inside, key=lambda name: self.inside[name])

    @property
    def total(self) -> int:
        """All together, while the widest graph runs."""
        return self.weights + self.prologue + self.slots + self.inside[self.widest]


def memory_need(parts: Parts) -> MemoryNeed:
    """What running the graphs takes at most."""
    storages = {
        value.untyped_storage().data_ptr() or id(value): value.numel() * value.element_size()
        for value in parts.weights.values()
    }
    prologue = 0 if parts.prologue is None else parts.prologue.size_bytes
    return MemoryNeed(
        weights=sum(storages.values()),
        prologue=prologue * len(parts.plan.streams),
        slots=parts.check.peak_bytes,
        inside={part.name: held_bytes(part.module) for part in parts.graphs},
    )


def check_memory(need: MemoryNeed, bound: int | None, plan: str) -> None:
    """Refuse what does not fit.

    Args:
        need: of the bundle.
        bound: bytes that there are; None for no bound.
        plan: its name, for the message.

    Raises:
        MemoryPlanError: naming each part of the sum, and what would make it smaller.
    """
    if bound is None or need.total <= bound:
        return
    inside = need.inside[need.widest]
    parts = {
        "weights": need.weights, "values of the prologue": need.prologue, "slots": need.slots,
        f"inside {need.widest!r}": inside,
    }  # fmt: skip
    said = ", ".join(f"{size} {name}" for name, size in parts.items())
    raise MemoryPlanError(
        f"plan {plan!r} needs {need.total} bytes and the target has {bound}: {said}. "
        f"{_remedy(need, bound)}"
    )


def _remedy(need: MemoryNeed, bound: int) -> str:
    without_slots = need.total - need.slots
    if need.slots and without_slots < bound:
        return f"Set max_cache_bytes to {bound - without_slots}, or take a plan with fewer slots."
    if need.total - need.weights // 2 <= bound:
        return "Build in a dtype of half the size."
    return "Build in a smaller dtype, for fewer views or frames, or for a device with more memory."


def held_bytes(module: fx.GraphModule) -> int:
    """What a graph holds at most at any time, without what it is given.

    A branch holds what it computes beside what lives around it; of two branches the wider counts.
    """
    graph = module.graph
    freed = last_readers(graph)
    live = most = 0
    for node in graph.nodes:
        inside = _widest_branch(module, node) if node.target is COND else 0
        made = value_bytes(node) if node.op == "call_function" and not is_view(node) else 0
        most = max(most, live + inside, live + made)
        live += made - sum(value_bytes(value) for value in freed.get(node, ()))
    return most


def _widest_branch(module: fx.GraphModule, node: fx.Node) -> int:
    ways = [module.get_submodule(str(way.target)) for way in node.args[1:3]]  # type: ignore[union-attr]
    return max(held_bytes(way) for way in ways if isinstance(way, fx.GraphModule))
