"""A plan's row and the canonical graph become one variant: a pure graph with its slots."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx
from turbo4d.passes import PassReport
from turbo4d.passes.base import own_outputs, returned
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.region_info import slot_region

from .compat import late_module
from .exact import exact_form
from .pipeline import run
from .region_passes import passes_for, slot_placeholders, source_of, written_by
from .segments import cuts_of
from .verify import verify
from .verify_sites import known_sites

if TYPE_CHECKING:
    from turbo4d.runtime.action import Action
    from turbo4d.runtime.plan import VariantKey

    from .analysis import Analysis
    from .ir import Capture
    from .regions import Region


@dataclass(frozen=True)
class Variant:
    """One graph for one kind of step: `(args, prologue, slots_in) -> (outputs, slots_out)`.

    Args:
        key: what it was made for.
        module: placeholders are the arguments it needs, then values of the
            prologue, then its slots; it returns the model's
            outputs, then the slots it writes.
        arg_indices: for each argument, its position in the capture's table.
        prologue_indices: for each value of the prologue it takes, its position among them all.
        reads: regions whose slots it takes, in order.
        writes: regions whose slots it returns, in order.
        outputs: how many of the returned values are the model's.
        reports: of each pass, in order.
        cuts: nodes after which a lowering may end a segment; the same in every variant.
        flags: of a conditional variant, the regions that a boolean after the slots tells to skip.
    """

    key: VariantKey
    module: fx.GraphModule
    arg_indices: tuple[int, ...]
    prologue_indices: tuple[int, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    outputs: int
    reports: tuple[PassReport, ...]
    cuts: frozenset[str] = frozenset()
    flags: tuple[str, ...] = ()

    @property
    def slot_values(self) -> tuple[torch.Tensor, ...]:
        """What it takes for each name in `reads`, without data."""
        given = [node.meta["val"] for node in self.module.graph.find_nodes(op="placeholder")]
        first = len(self.arg_indices) + len(self.prologue_indices)
        return tuple(given[first : first + len(self.reads)])


def specialise(analysis: Analysis, key: VariantKey, *, merge_projections: bool = False) -> Variant:
    """Make the graph of one variant; the captured graph stays as it is.

    Args:
        analysis: of the model.
        key: a row of a plan, or several that agree.
        merge_projections: of an exact variant; see `exact.exact_form`.

    Raises:
        PlanError: a region that is unknown, named inside one that is not executed, or given an
            action that this version cannot make.
        VerifyError: a pass broke an invariant.
    """
    sites = known_sites(analysis)
    if not key.exact:
        return specialise_capture(analysis.capture, analysis.regions, sites, key)
    form = exact_form(analysis, merge_projections=merge_projections)
    count = len(analysis.capture.table)
    return _specialise(form.module, form.inputs, count, analysis.regions, sites, key)


def specialise_capture(
    capture: Capture,
    regions: Sequence[Region],
    sites: Mapping[str, str | None] | None,
    key: VariantKey,
) -> Variant:
    """As `specialise`, without exact passes, for a capture that need be no denoiser."""
    names = tuple(row.name for row in capture.table)
    return _specialise(capture.module, names, len(names), regions, sites, key)


def _specialise(
    source: fx.GraphModule,
    names: Sequence[str],
    args: int,
    regions: Sequence[Region],
    sites: Mapping[str, str | None] | None,
    key: VariantKey,
) -> Variant:
    """Make a variant of a graph whose placeholders are `args` arguments, then prologue values."""
    check_key(key, {region.name: region for region in regions})
    gm = late_module(source, copy.deepcopy(source.graph))
    with torch.no_grad():
        own_outputs(gm.graph)
    outputs = len(returned(gm.graph))
    full = os.environ.get("TURBO4D_VERIFY") == "full"

    def check(gm: fx.GraphModule, report: PassReport) -> None:
        slots = [node.name for node in gm.graph.nodes if node.op == "placeholder"][len(names) :]
        verify(gm, inputs=[*names, *slots], sites=sites, regions=regions)

    passes = passes_for(key, regions, gm.graph)
    reports = run(gm, passes, between=check, dump=key.name)
    behind = slot_placeholders(passes)
    slots_in = [node.name for node in gm.graph.nodes if node.name in behind]
    kept = drop_unused(gm.graph, names)
    gm.recompile()
    verify(gm, inputs=[*(names[i] for i in kept), *slots_in], sites=sites, full=full)
    return Variant(
        key=key,
        module=gm,
        arg_indices=tuple(i for i in kept if i < args),
        prologue_indices=tuple(i - args for i in kept if i >= args),
        reads=tuple(behind[name] for name in slots_in),
        writes=written_by(passes),
        outputs=outputs,
        reports=reports,
        cuts=cuts_of(regions, key),
    )


def check_key(key: VariantKey, regions: Mapping[str, Region]) -> None:
    """Refuse a key that no graph can be made for.

    Raises:
        PlanError: as `specialise`.
    """
    actions = dict(key.actions)
    writers = {slot: slot if slot in regions else slot_region(slot) for slot in key.writes}
    for slot, name in (*zip(actions, actions, strict=True), *writers.items()):
        if name not in regions or (slot != name and source_of(slot, regions) is None):
            raise PlanError(_unknown(slot, regions))
        if (outer := _skipped_by(name, regions, actions)) is not None:
            did = "written" if slot in key.writes else str(actions[name])
            raise PlanError(
                f"region {slot!r} is to be {did} inside {outer!r}, whose action is "
                f"{actions[outer]}, so it is not executed; leave one of the two out."
            )
    for slot, name in writers.items():
        if name in actions:
            raise PlanError(
                f"region {slot!r} is to be written where its action is {actions[name]}; "
                f"only a region that is computed can be written."
            )
    _check_relevance(key, regions)


def _check_relevance(key: VariantKey, regions: Mapping[str, Region]) -> None:
    wanted: set[str] = set()
    for name, action in key.actions:
        if action.kind == "prune":
            how = regions[name].pruning
            if how is None:
                raise PlanError(
                    f"region {name!r} is to be pruned and cannot be: {regions[name].unprunable}. "
                    "Compute or reuse it."
                )
            wanted.add(how.relevance)
    if wanted != {*key.relevance}:
        raise PlanError(
            f"the variant reads relevance {list(key.relevance)}; its pruned regions follow "
            f"{sorted(wanted)}. Name those."
        )


def _skipped_by(
    name: str, regions: Mapping[str, Region], actions: Mapping[str, Action]
) -> str | None:
    outer = regions[name].parent
    while outer is not None:
        if outer in actions:
            return outer
        outer = regions[outer].parent
    return None


def _unknown(name: str, regions: Mapping[str, Region]) -> str:
    if not regions:
        return f"region {name!r} is unknown to this model; it has none."
    close = difflib.get_close_matches(name, regions, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(repr(known) for known in sorted(regions)[:8])
    more = ", ..." if len(regions) > 8 else ""
    return (
        f"region {name!r} is unknown to this model; it has {len(regions)} regions: "
        f"{listed}{more}.{meant}"
    )


def drop_unused(graph: fx.Graph, names: Sequence[str]) -> tuple[int, ...]:
    """Erase the placeholders in `names` that nothing uses; gives the positions of the others."""
    position = {name: index for index, name in enumerate(names)}
    kept: list[int] = []
    for node in [node for node in graph.nodes if node.op == "placeholder"]:
        if node.name not in position:
            continue
        if node.users:
            kept.append(position[node.name])
        else:
            graph.erase_node(node)
    return tuple(kept)
