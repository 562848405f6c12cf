"""The exact form of a model: its graph after the passes that change no number beyond rounding.

It is made once for an analysis and shared by all its variants: a prologue, and a step graph that
the region passes of each variant then work on.
"""

from __future__ import annotations

import copy
import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx
from turbo4d.passes import (
    FoldSingleKeyAttention,
    MergeDuplicates,
    MergeSharedProjections,
    Pass,
    PassReport,
    SinkExpand,
    SplitInvariantInput,
)
from turbo4d.passes.base import own_outputs

from .compat import late_module
from .errors import VerifyError
from .pipeline import run
from .prologue import Prologue, hoist
from .verify import verify
from .verify_sites import known_sites

if TYPE_CHECKING:
    from .analysis import Analysis
    from .regions import Region


@dataclass(frozen=True)
class ExactForm:
    """A model after its exact passes.

    Args:
        module: the step graph: the placeholders of the capture, then those of the prologue's
            values; every region's entries, exits and values are nodes of it, by name.
        prologue: what a session runs once for each stream.
        inputs: names of all placeholders of `module`, in order.
        reports: of each pass, in order.
    """

    module: fx.GraphModule
    prologue: Prologue
    inputs: tuple[str, ...]
    reports: tuple[PassReport, ...]


def exact_form(analysis: Analysis, *, merge_projections: bool = False) -> ExactForm:
    """The exact form of a model; made at the first call, then the same one.

    Args:
        analysis: of the model.
        merge_projections: whether products of one value become one.

    Raises:
        VerifyError: a pass broke an invariant, or lost a region.
    """
    key = id(analysis), merge_projections
    with _LOCK:
        form = _FORMS.get(key)
        if form is None:
            form = _FORMS[key] = _make(analysis, exact_passes(analysis, merge_projections))
            weakref.finalize(analysis, _FORMS.pop, key, None)
        return form


# By identity: an analysis holds mappings, so it has no hash. A form does not hold its analysis.
_FORMS: dict[tuple[int, bool], ExactForm] = {}
_LOCK = threading.Lock()


def exact_passes(analysis: Analysis, merge_projections: bool = False) -> tuple[Pass, ...]:
    """The exact passes for a model, in the order of `passes.ALL_PASSES`."""
    table, keep = analysis.capture.table, named_by(analysis.regions)
    declared = sorted(analysis.roles.channels.items())
    varying = tuple(table[index].name for index in varying_inputs(analysis))
    return (
        FoldSingleKeyAttention(),
        SinkExpand(keep=keep),
        *(SplitInvariantInput(table[index].name, ranges) for index, ranges in declared),
        MergeDuplicates(keep=keep),
        *((MergeSharedProjections(varying),) if merge_projections else ()),
    )


def varying_inputs(analysis: Analysis) -> tuple[int, ...]:
    """Positions of the inputs that change from step to step: all that are not conditioning."""
    rows = enumerate(analysis.capture.table)
    inputs = (index for index, row in rows if row.kind == "input")
    return tuple(index for index in inputs if index not in analysis.roles.conditioning)


def named_by(regions: Sequence[Region]) -> tuple[str, ...]:
    """The nodes that regions know by name, each once, sorted."""
    ports = [port for region in regions for port in region.ports]
    return tuple(sorted({n for p in ports for n in (p.entry, p.exit, p.value) if n is not None}))


def _make(analysis: Analysis, passes: Sequence[Pass]) -> ExactForm:
    capture = analysis.capture
    gm = late_module(capture.module, copy.deepcopy(capture.module.graph))
    with torch.no_grad():
        own_outputs(gm.graph)
    names = [row.name for row in capture.table]
    sites = known_sites(analysis)
    reports = run(
        gm,
        passes,
        between=lambda gm, report: verify(gm, inputs=names, sites=sites, regions=analysis.regions),
        dump="exact",
    )
    prologue = hoist(
        gm,
        inputs=[row.name for row in capture.table if row.kind == "input"],
        varying=[names[i] for i in varying_inputs(analysis)],
        channels={names[i]: ranges for i, ranges in analysis.roles.channels.items()},
    )
    held = tuple(node.name for node in gm.graph.find_nodes(op="placeholder"))
    full = os.environ.get("TURBO4D_VERIFY") == "full"
    verify(gm, inputs=held, sites=sites, full=full)
    taken = [names[i] for i in prologue.arg_indices]
    verify(prologue.module, inputs=taken, sites=sites, full=full)
    _check_regions(gm.graph, analysis.regions)
    return ExactForm(gm, prologue, held, reports)


def _check_regions(graph: fx.Graph, regions: Sequence[Region]) -> None:
    present = {node.name for node in graph.nodes}
    for region in regions:
        for name in named_by([region]):
            # An entry off the stream may come from the prologue.
            if present.isdisjoint((name, f"prologue_{name}")):
                raise VerifyError(
                    f"region {region.name!r}: the exact passes left no %{name}; a region is known "
                    "by the names of its nodes."
                )
