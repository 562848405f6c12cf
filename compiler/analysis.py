"""Everything the compiler learns from a capture, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from turbo4d.compiler.attentions import find_attentions
from turbo4d.compiler.axes import letters_of, map_axes
from turbo4d.compiler.errors import NoSitesError
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.flow import Flow
from turbo4d.compiler.geometry import resolve
from turbo4d.compiler.ir import Capture
from turbo4d.compiler.regions import Region, find_regions
from turbo4d.compiler.roles import Roles, find_roles
from turbo4d.compiler.sites import SELF_KINDS, Site, classify, name_sites
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
    """

    capture: Capture
    geometry: Geometry
    roles: Roles
    axes: Mapping[str, tuple[str, ...]]
    sites: tuple[Site, ...]
    regions: tuple[Region, ...]
    flops: Mapping[str, int]


def analyse(capture: Capture, geometry: Mapping[str, int | str] | None = None) -> Analysis:
    """Find out everything that a plan, a pass or a reader needs to know of a capture.

    Args:
        capture: from either door.
        geometry: any of batch, views, frames, height, width, as sizes; and order, the letters of
            the image axis, "BFV" or "BVF". The rest is inferred.

    Raises:
        CaptureError: where the sample or the level cannot be told.
        NoSitesError: where nothing attends over the sample.
        GeometryError: where the sizes contradict the graph, or it leaves them open.
    """
    graph = capture.module.graph
    roles = find_roles(capture)
    attentions = find_attentions(graph)
    axes = map_axes(capture, roles, attentions)
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
    sites = name_sites(on_stream, [kinds[flow.index[a.node.name]] for a in on_stream], regions)
    by_node = {site.node: site.name for site in sites}
    intervals = layout.intervals(axes.images)
    return Analysis(
        capture=capture,
        geometry=layout.geometry,
        roles=roles,
        axes={
            name: tuple(letters_of(axis, intervals) for axis in of) for name, of in axes.of.items()
        },
        sites=sites,
        regions=tuple(
            replace(region, sites=tuple(by_node[node] for node in region.sites))
            for region in regions
        ),
        flops=flops,
    )
