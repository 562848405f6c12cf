"""The outermost region: the whole step, from the sample to what the denoiser gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx
from turbo4d.compiler.flow import Flow, only_for, total
from turbo4d.compiler.ports import port_of
from turbo4d.compiler.regions import Region
from turbo4d.runtime.fitted import STEP, channels_like


def with_step(
    regions: Sequence[Region], flow: Flow, sample: fx.Node, flops: dict[str, int]
) -> tuple[Region, ...]:
    """The regions, and around them the step, where it gives one value shaped as its sample.

    Args:
        regions: of a network, outermost first.
        flow: of its graph.
        sample: the placeholder of the sample.
        flops: by node name.
    """
    [end] = flow.nodes[0].graph.find_nodes(op="output")
    if len(end.all_input_nodes) != 1 or not regions:
        return tuple(regions)
    [output] = end.all_input_nodes
    if output.op != "call_function" or output.name not in flow.index:
        return tuple(regions)
    if channels_like(sample.meta["val"], output.meta["val"]) is None:
        return tuple(regions)
    needed = only_for(output, ())
    step = Region(
        name=STEP,
        kind="step",
        parent=None,
        ports=(port_of(sample, output, output, whole=True),),
        entries=(sample.name,),
        sites=tuple(dict.fromkeys(site for region in regions for site in region.sites)),
        nodes=sum(node.name in flow.index for node in needed),
        flops=total(needed, flops),
    )
    inner = (replace(r, parent=STEP) if r.parent is None else r for r in regions)
    return (step, *inner)
