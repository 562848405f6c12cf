"""Everything the compiler learns from a capture, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from turbo4d.compiler.attentions import Unread, find_attentions, find_unread
from turbo4d.compiler.axes import letters_of, map_axes
from turbo4d.compiler.errors import CaptureError, NoSitesError
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.flow import Flow
from turbo4d.compiler.gated import with_gates
from turbo4d.compiler.geometry import resolve
from turbo4d.compiler.ir import Capture
from turbo4d.compiler.pruning import find_pruning
from turbo4d.compiler.regions import Region, find_regions
from turbo4d.compiler.roles import Roles, find_roles
from turbo4d.compiler.sites import SELF_KINDS, Aside, Site, classify, name_aside, name_sites
from turbo4d.compiler.whole_step import with_step
from turbo4d.runtime.geometry import Geometry


@dataclass(frozen=True)
class Analysis:
    """A capture with its geometry, roles, axes, sites and regions.

    Args:
        capture: as given.
        geometry: resolved.
        roles: of the inputs.
        axes: for each value, for each dimension, the letters of the factors it is made of.
        sites: in the order of the graph.
        regions: outermost first, then in the order of the graph.
        flops: of each node that multiplies, by node name.
        unread: what is on the sample's path and may be an attention, and is no site.
        aside: the attentions off that path, which refine the conditioning, and what each runs over.
    """

    capture: Capture
    geometry: Geometry
    roles: Roles
    axes: Mapping[str, tuple[str, ...]]
    sites: tuple[Site, ...]
    regions: tuple[Region, ...]
    flops: Mapping[str, int]
    unread: tuple[Unread, ...] = ()
    aside: tuple[Aside, ...] = ()


def analyse(
    capture: Capture,
    geometry: Mapping[str, int | str] | None = None,
    roles: Roles | None = None,
    *,
    gates: bool = True,
) -> Analysis:
    """Find out everything that a plan, a pass or a reader needs to know of a capture.

    Args:
        capture: from either door.
        geometry: any of batch, views, frames, height, width, as sizes; and order, the letters of
            the image axis, "BFV" or "BVF". The rest is inferred.
        roles: of the inputs, where they are known; None finds them.
        gates: whether slots hold what is behind the gates of the level; else whole residuals.

    Raises:
        CaptureError: where the sample or the level cannot be told.
        NoSitesError: where nothing attends over the sample.
        GeometryError: where the sizes contradict the graph, or it leaves them open.
    """
    graph = capture.module.graph
    roles = roles or find_roles(capture)
    _refuse_complex(capture, roles)
    attentions = find_attentions(graph)
    axes = map_axes(capture, roles, attentions, geometry)
    layout = resolve(capture, roles, axes, geometry)
    flow = Flow(graph, roles.stream)
    on_stream = [a for a in attentions if a.node.name in flow.index]
    if not on_stream:
        raise NoSitesError(
            f"no attention depends on the sample {capture.table[roles.sample].target!r}; the graph "
            f"has {len(attentions)} attentions in {len(flow.nodes)} nodes on its path."
        )
    kinds = {flow.index[a.node.name]: classify(a, roles, axes, layout) for a in on_stream}
    flops = count_flops(graph)
    regions = find_regions(
        flow,
        {at: kind for at, (kind, _) in kinds.items() if kind in SELF_KINDS},
        {flow.index[a.node.name]: a.node.name for a in on_stream},
        flops,
    )
    found = [kinds[flow.index[a.node.name]] for a in on_stream]
    sites = name_sites(on_stream, found, regions, axes)
    by_node = {site.node: site.name for site in sites}
    by_attention = {a.node.name: kinds[flow.index[a.node.name]][0] for a in on_stream}
    pruning = find_pruning(graph, regions, on_stream, by_attention, axes, flops)
    placeholders = [*graph.find_nodes(op="placeholder")]
    level = None if roles.level is None else placeholders[roles.level]
    intervals = layout.intervals(axes.images)
    named = [
        replace(region, sites=tuple(by_node[node] for node in region.sites), **how)
        for region, how in zip(regions, pruning, strict=True)
    ]
    return Analysis(
        capture=capture,
        geometry=layout.geometry,
        roles=roles,
        axes={
            name: tuple(letters_of(axis, intervals) for axis in of) for name, of in axes.of.items()
        },
        sites=sites,
        regions=with_step(
            with_gates(named, flow, level, flops) if gates else named,
            flow,
            placeholders[roles.sample],
            flops,
        ),
        flops=flops,
        unread=tuple(find_unread(graph, attentions, roles.stream)),
        aside=tuple(name_aside(a, axes, layout) for a in attentions if a not in on_stream),
    )


def _refuse_complex(capture: Capture, roles: Roles) -> None:
    row = capture.table[roles.sample]
    if row.dtype.is_complex:
        raise CaptureError(
            f"the sample {row.target!r} is of {str(row.dtype).removeprefix('torch.')}; wanted real "
            "numbers. Hand it over as torch.view_as_real gives it, or set plan='none'."
        )
