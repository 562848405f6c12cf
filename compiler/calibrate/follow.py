"""Plans carried out on graphs that serve every plan: each step writes all that it computes.

A plan's own variants write what is read later and no more, so nearly every plan needs graphs of its
own, each made in about a second. Where many plans are to be sampled and none is timed, one graph
for each row does. What a graph computes does not depend on what it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from turbo4d.runtime.action import REUSE, Action
from turbo4d.runtime.engine_shelf import EngineShelf
from turbo4d.runtime.extrapolation import predict, weighted, weights
from turbo4d.runtime.fitted import add_sample
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.region_info import RegionInfo, relevance_slot
from turbo4d.runtime.variant_key import VariantKey

from .moves import skipped

_DEEPEST = 10  # values of a slot that any order reads
Value = tuple[int, Sequence[Tensor]]  # a step, and what it wrote


@dataclass
class Following:
    """One run of a plan: what a sampler's calls go to.

    Args:
        plan: that passes its check.
        shelf: the denoiser's engines.
        regions: by name.
        places: ln(sigma) of each step.
        sample: index of the sample among the flat arguments.
        constant: its channels [start, stop) that are declared not to change.
    """

    plan: Plan
    shelf: EngineShelf
    regions: Mapping[str, RegionInfo]
    places: Sequence[float]
    sample: int
    constant: Sequence[tuple[int, int]] = ()
    _held: dict[tuple[str, str], list[Value]] = field(
        default_factory=dict[tuple[str, str], list[Value]]
    )
    _prologues: dict[str, Sequence[Tensor]] = field(default_factory=dict[str, Sequence[Tensor]])

    def __call__(self, stream: str, step: int, args: Sequence[Tensor]) -> Sequence[Tensor]:
        """One call of the network.

        Args:
            stream: of the plan.
            step: of the plan.
            args: all flat arguments.
        """
        actions = self.plan.rows(stream)[step] or {}
        engine = self.shelf.get(writing_all(actions, self.regions))
        slots: dict[str, Iterator[Tensor]] = {}
        for name in {*engine.reads}:
            action = actions.get(name, REUSE)
            newest = self._held[stream, name][-action.order - 1 :]
            slots[name] = iter(mixed(newest, self.places, step, action.mix))
        if stream not in self._prologues:
            prologue = self.shelf.prologue()
            self._prologues[stream] = () if prologue is None else prologue(args)
        fits = {name: action for name, action in actions.items() if action.mix}
        values = [next(slots[name]) for name in engine.reads]
        slots_in = add_sample(engine.reads, values, fits, args[self.sample], self.constant)
        outputs, written = engine(args, self._prologues[stream], slots_in)
        found: dict[str, list[Tensor]] = {}
        for name, value in zip(engine.writes, written, strict=True):
            found.setdefault(name, []).append(value)
        for name, values in found.items():
            history = [*self._held.get((stream, name), []), (step, values)]
            self._held[stream, name] = history[-_DEEPEST:]
        return outputs


def writing_all(actions: Mapping[str, Action], regions: Mapping[str, RegionInfo]) -> VariantKey:
    """The variant of a row that writes all that the row computes.

    Args:
        actions: of the row.
        regions: by name.
    """
    computed = [name for name in regions if not skipped(name, actions, regions)]
    pruned = [name for name, action in actions.items() if action.kind == "prune"]
    followed = {regions[name].relevance for name in pruned}
    marks = {info.relevance for info in regions.values()} & {*computed}
    return VariantKey(
        tuple(sorted((name, act.built) for name, act in actions.items())),
        tuple(sorted([*computed, *(relevance_slot(name) for name in marks if name is not None)])),
        exact=True,
        relevance=tuple(sorted(relevance_slot(name) for name in followed if name is not None)),
    )


def mixed(
    history: Sequence[Value], places: Sequence[float], step: int, mix: Sequence[float] = ()
) -> Sequence[Tensor]:
    """What is read of a slot that holds these values, extrapolated where there are several.

    Args:
        history: the oldest first.
        places: ln(sigma) of each step.
        step: that reads.
        mix: the plan's own weights, where it has them.
    """
    if mix:
        return [weighted(port, mix) for port in zip(*(of for _, of in history), strict=True)]
    if len(history) == 1:
        return history[0][1]
    mix = weights(tuple(places[at] for at, _ in history), places[step])
    return [predict(port, mix) for port in zip(*(values for _, values in history), strict=True)]
