"""One graph for all variants of a plan: each region a cond, driven by a flag of its own.

    skip_<region>   true: the region is not executed, its slot stands for it
    slot_<region>   what it adds, or its exit; zero where it is bypassed

A slot that comes in goes out again where its region is not executed, so a host that keeps nothing
but the last slots has them all. Regions nest: the branch that computes a level holds the conds of
its chains. What two regions share and nothing else reads is computed even where both are skipped.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import fx
from turbo4d.passes.base import (
    COND,
    add_slot,
    aten,
    emit,
    erase_unused,
    own_outputs,
    return_also,
    returned,
    slot_name,
)
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.variant_key import VariantKey

from .branches import into_cond
from .compat import late_module
from .errors import LowerError
from .exact import exact_form
from .specialise import Variant, check_key, drop_unused
from .verify import verify
from .verify_sites import known_sites

if TYPE_CHECKING:
    from .analysis import Analysis
    from .regions import Region

Pair = tuple[fx.Node, fx.Node]
"""What is computed, and what stands for it where the region is skipped."""


def conditional(
    analysis: Analysis, keys: Collection[VariantKey], *, merge_projections: bool = False
) -> Variant:
    """The graph that can run each of some variants, and any other mix of what they do.

    Args:
        analysis: of the model.
        keys: of a plan; all exact, or none.
        merge_projections: of exact variants; see `exact.exact_form`.

    Returns:
        A variant whose key computes and writes all; it takes its slots, then one boolean scalar for
        each of its `flags`, and returns the model's outputs, then all slots.

    Raises:
        PlanError: a key that no graph can be made for, or one with an action that no flag can tell.
        LowerError: regions that are neither nested nor apart.
        VerifyError: the graph breaks an invariant.
    """
    known = {region.name: region for region in analysis.regions}
    exact = _agreed(keys)
    for key in keys:
        check_flags(key, known)
    acting = sorted({name for key in keys for name in (*dict(key.actions), *key.writes)})
    kept = sorted({name for key in keys for name in (*key.reads, *key.writes)})
    names = tuple(row.name for row in analysis.capture.table)
    source, inputs = analysis.capture.module, names
    if exact:
        form = exact_form(analysis, merge_projections=merge_projections)
        source, inputs = form.module, form.inputs
    gm = late_module(source, copy.deepcopy(source.graph))
    with torch.no_grad():
        own_outputs(gm.graph)
        outputs = len(returned(gm.graph))
        added = _Folded(gm, [known[name] for name in acting], kept).added
    used = drop_unused(gm.graph, inputs)
    gm.recompile()
    sites = known_sites(analysis)
    verify(gm, inputs=[*(inputs[at] for at in used), *added], sites=sites)
    for branch in branches(gm):
        taken = [node.name for node in branch.graph.find_nodes(op="placeholder")]
        verify(branch, inputs=taken, sites=sites)
    reads = tuple(name for name in kept for _ in known[name].ports)
    return Variant(
        key=VariantKey((), tuple(kept), exact),
        module=gm,
        arg_indices=tuple(at for at in used if at < len(names)),
        prologue_indices=tuple(at - len(names) for at in used if at >= len(names)),
        reads=reads,
        writes=reads,
        outputs=outputs,
        reports=(),
        flags=tuple(acting),
    )


def check_flags(key: VariantKey, regions: Mapping[str, Region]) -> None:
    """Refuse a key that no graph can be made for, or one with an action that no flag can say.

    Raises:
        PlanError: as `conditional`.
    """
    for name, action in key.actions:
        if action.kind not in ("reuse", "bypass"):
            raise PlanError(
                f"region {name!r} has action {action}; a conditional engine computes a region or "
                "skips it, so leave the option conditional off, or the action out of the plan."
            )
    check_key(key, regions)
    for name, action in key.actions:
        if action.kind == "bypass" and not regions[name].residual:
            raise PlanError(
                f"region {name!r} is to be bypassed, but its slot holds its exit; only a region "
                "that adds to its entry can be left out."
            )
    for name in key.writes:
        if name not in regions:
            raise PlanError(
                f"slot {name!r} tells a pruned region its tokens; a conditional engine computes a "
                "region or skips it, so leave the option conditional off, or prune out of the plan."
            )


def branches(gm: fx.GraphModule) -> Iterator[fx.GraphModule]:
    """Every branch of every cond of a graph, those within others too."""
    for node in gm.graph.find_nodes(op="call_function", target=COND):
        for way in node.args[1:3]:
            branch = gm.get_submodule(str(way.target))  # type: ignore[union-attr]
            if isinstance(branch, fx.GraphModule):
                yield branch
                yield from branches(branch)


def flag_name(region: str) -> str:
    """Name of the placeholder that says whether a region is skipped: `skip_middle_chain`."""
    return f"skip_{region.replace('.', '_')}"


def _agreed(keys: Collection[VariantKey]) -> bool:
    kinds = {key.exact for key in keys}
    if len(kinds) != 1:
        what = "exact and plain variants" if kinds else "no variant"
        raise PlanError(
            f"a conditional engine is wanted for {what}; it holds one graph, of variants that are "
            "all exact or all plain."
        )
    return kinds.pop()


class _Folded:
    """A graph whose regions become conds, the smallest first.

    Args:
        gm: changed in place.
        regions: that become conds, by name.
        kept: names of those that have slots; the others are bypassed and nothing else.
    """

    def __init__(
        self, gm: fx.GraphModule, regions: Sequence[Region], kept: Collection[str]
    ) -> None:
        self._gm, self._graph = gm, gm.graph
        self._now: dict[str, fx.Node] = {node.name: node for node in gm.graph.nodes}
        self._written: dict[str, list[fx.Node]] = {}
        sizes = {region.name: len(self._inside(region)) for region in regions}
        having = [region for region in regions if region.name in kept]
        self._slots = {region.name: list(self._add_slots(region)) for region in having}
        self._flags = {region.name: self._add_flag(region) for region in regions}
        for region in sorted(regions, key=lambda one: sizes[one.name]):
            self._fold(region)
        for name in self._slots:
            for slot in self._written[name]:
                return_also(self._graph, slot)
        own_outputs(self._graph)
        erase_unused(self._graph)

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the placeholders after those that the graph had: slots, then flags."""
        slots = (slot.name for name in self._slots for slot in self._slots[name])
        return (*slots, *(flag.name for flag in self._flags.values()))

    def _add_slots(self, region: Region) -> Iterator[fx.Node]:
        for number, port in enumerate(region.ports):
            value = self._node(region, port.value)
            slot = add_slot(self._graph, slot_name(region.name, number), value)
            if port.form == "difference":
                entry = self._node(region, port.entry)
                slot.meta["val"] = aten.sub.Tensor(value.meta["val"], entry.meta["val"])
            yield slot

    def _add_flag(self, region: Region) -> fx.Node:
        flag = add_slot(self._graph, flag_name(region.name), self._node(region, region.value))
        flag.meta["val"] = flag.meta["val"].new_empty((), dtype=torch.bool, device="cpu")
        return flag

    def _fold(self, region: Region) -> None:
        """Put what only the region needs into a branch, and the slots that are written there."""
        with self._graph.inserting_before(self._graph.output_node()):
            stream, slots = self._pairs(region)
        pairs = [*stream, *slots.values()]
        inside = self._inside(region, [pair[0] for pair in pairs])
        for name, held in self._written.items():
            for at, value in enumerate(held):
                if value in inside:
                    with self._graph.inserting_before(self._graph.output_node()):
                        slots[name, at] = value, self._copy(name, at)
        pairs = [*stream, *slots.values()]
        values = into_cond(self._gm, self._flags[region.name], region.name, pairs, inside)
        moved = {old: new for (old, _), new in zip(stream, values, strict=False)}
        gone = {*inside, *moved}
        self._now = {
            n: moved.get(v, v) for n, v in self._now.items() if v in moved or v not in gone
        }
        if region.name in self._slots:
            self._written[region.name] = list(values[: len(region.ports)])
        for (name, at), new in zip(slots, values[len(stream) :], strict=True):
            self._written[name][at] = new

    def _pairs(self, region: Region) -> tuple[list[Pair], dict[tuple[str, int], Pair]]:
        """What is computed and what stands for it: on the stream, and of the region's own slots."""
        stream: list[Pair] = []
        slots: dict[tuple[str, int], Pair] = {}
        for at, port in enumerate(region.ports):
            if region.name not in self._slots:
                entry = self._node(region, port.entry)
                stood = emit(self._graph, aten.clone.default, entry)
                stream.append((self._node(region, port.exit), stood))
                continue
            value, slot = self._node(region, port.value), self._slots[region.name][at]
            if port.form != "difference":
                stream.append((value, self._copy(region.name, at)))
                continue
            entry = self._node(region, port.entry)
            stream.append((value, emit(self._graph, aten.add.Tensor, entry, slot)))
            made = emit(self._graph, aten.sub.Tensor, value, entry)
            slots[region.name, at] = made, self._copy(region.name, at)
        return stream, slots

    def _copy(self, name: str, at: int) -> fx.Node:
        return emit(self._graph, aten.clone.default, self._slots[name][at])

    def _inside(self, region: Region, values: Collection[fx.Node] = ()) -> set[fx.Node]:
        """What nothing reads but the region's values; being a slot's value counts for nothing."""
        bypassed = bool(values) and region.name not in self._slots
        kept = {
            self._node(region, port.entry)
            for port in region.ports
            if port.entry is not None and (bypassed or port.form != "exit")
        }
        found = set(values) or {self._node(region, port.value) for port in region.ports}
        waiting = list(found)
        while waiting:
            for operand in waiting.pop().all_input_nodes:
                if operand.op == "placeholder" or operand in found or operand in kept:
                    continue
                if all(
                    user in found or not (user.users or user.op == "output")
                    for user in operand.users
                ):
                    added = {operand, *(user for user in operand.users if user not in found)}
                    found |= added
                    waiting += added
        return found

    def _node(self, region: Region, name: str | None) -> fx.Node:
        """The node that a region knows by this name; one off the stream may be the prologue's."""
        held = self._now.get(name or "") or self._now.get(f"prologue_{name}")
        if held is None:
            raise LowerError(
                f"region {region.name!r} cannot be a branch: %{name} went into that of another "
                "region that is neither within it nor around it; leave one of the two out of a "
                "conditional plan."
            )
        return held
