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
from turbo4d.passes import PassReport, ReuseRegion
from turbo4d.passes.base import own_outputs, returned, slot_name
from turbo4d.runtime.errors import PlanError

from .pipeline import run
from .region_passes import passes_for
from .verify import verify

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
    """

    key: VariantKey
    module: fx.GraphModule
    arg_indices: tuple[int, ...]
    prologue_indices: tuple[int, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    outputs: int
    reports: tuple[PassReport, ...]


def specialise(analysis: Analysis, key: VariantKey) -> Variant:
    """Make the graph of one variant; the captured graph stays as it is.

    Args:
        analysis: of the model.
        key: a row of a plan, or several that agree.

    Raises:
        PlanError: a region that is unknown, named inside one that is not executed, or given an
            action that this version cannot make.
        VerifyError: a pass broke an invariant.
    """
    sites = {site.node: site.region for site in analysis.sites}
    return specialise_capture(analysis.capture, analysis.regions, sites, key)


def specialise_capture(
    capture: Capture,
    regions: Sequence[Region],
    sites: Mapping[str, str | None] | None,
    key: VariantKey,
) -> Variant:
    """As `specialise`, for a capture that need not be a denoiser: without regions, or sites."""
    check_key(key, {region.name: region for region in regions})
    captured = capture.module
    gm = fx.GraphModule(captured, copy.deepcopy(captured.graph))
    with torch.no_grad():
        own_outputs(gm.graph)
    outputs = len(returned(gm.graph))
    names = [row.name for row in capture.table]
    full = os.environ.get("TURBO4D_VERIFY") == "full"

    def check(gm: fx.GraphModule, report: PassReport) -> None:
        slots = [node.name for node in gm.graph.nodes if node.op == "placeholder"][len(names) :]
        verify(gm, inputs=[*names, *slots], sites=sites)

    passes = passes_for(key, regions, captured.graph)
    reports = run(gm, passes, between=check, dump=key.name)
    reads = tuple(pass_.region for pass_ in passes if isinstance(pass_, ReuseRegion))
    kept = _drop_unused(gm.graph, names)
    gm.recompile()
    verify(gm, inputs=[*(names[i] for i in kept), *map(slot_name, reads)], sites=sites, full=full)
    return Variant(key, gm, kept, (), reads, key.writes, outputs, reports)


def check_key(key: VariantKey, regions: Mapping[str, Region]) -> None:
    """Refuse a key that no graph can be made for.

    Raises:
        PlanError: as `specialise`.
    """
    actions = dict(key.actions)
    for name in (*actions, *key.writes):
        if name not in regions:
            raise PlanError(_unknown(name, regions))
        if (outer := _skipped_by(name, regions, actions)) is not None:
            did = "written" if name in key.writes else str(actions[name])
            raise PlanError(
                f"region {name!r} is to be {did} inside {outer!r}, whose action is "
                f"{actions[outer]}, so it is not executed; leave one of the two out."
            )
    for name, action in actions.items():
        if action.kind not in ("reuse", "bypass") or action.order:
            raise PlanError(
                f"region {name!r} has action {action}, which is not built yet; "
                f"this version executes bypass, compute, reuse."
            )
        if name in key.writes:
            raise PlanError(
                f"region {name!r} is to be written where its action is {action}; "
                f"only a region that is computed can be written."
            )


def _skipped_by(
    name: str, regions: Mapping[str, Region], actions: Mapping[str, Action]
) -> str | None:
    outer = regions[name].parent
    while outer is not None:
        if outer in actions and actions[outer].kind in ("reuse", "bypass"):
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


def _drop_unused(graph: fx.Graph, names: list[str]) -> tuple[int, ...]:
    """Erase the model's placeholders that nothing uses; gives the positions of the others."""
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
