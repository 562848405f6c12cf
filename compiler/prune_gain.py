"""prune-gain: what pruning a region is predicted to save and to add, before any plan does it.

The region's own calls are taken out of the graph, pruned, and counted before and after: operations,
bytes of every call with nothing fused (`traffic`), and whatever else `work` counts. What gathers
and scatters tokens is counted with the rest. A machine's rates turn all of it into seconds.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import fx
from torch.fx.node import map_arg
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.flow import only_for
from turbo4d.compiler.fresh_memory import largest_value
from turbo4d.compiler.pruning import kept_count
from turbo4d.compiler.traffic import bytes_of, count_bytes
from turbo4d.compiler.work import Work, work_of_graph
from turbo4d.passes.base import aten, slot_name
from turbo4d.runtime.errors import PlanError

# What choosing, gathering and scattering tokens is made of; any other new call is a second one.
_MOVES = frozenset(
    (
        aten.reshape.default, aten.permute.default, aten.slice.Tensor, aten.mean.dim,
        aten.sort.stable, aten.sort.default, operator.getitem, aten.arange.default,
        aten.add.Tensor, aten.mul.Tensor, aten.index_select.default, aten.index_copy.default,
    )
)  # fmt: skip

if TYPE_CHECKING:
    from turbo4d.compiler.analysis import Analysis
    from turbo4d.compiler.machine import Machine
    from turbo4d.compiler.regions import Region
    from turbo4d.runtime.variant_key import VariantKey


@dataclass(frozen=True)
class PruneGain:
    """What pruning one region does to one step.

    Args:
        region: its name.
        keep: the share of tokens.
        kept: how many that is.
        tokens: of how many.
        flops: operations of the region computed.
        flops_saved: how many fewer it needs.
        bytes_moved: bytes of the region computed.
        bytes_saved: how many fewer its own calls move.
        bytes_added: of the calls that choose, gather and scatter tokens.
        work_saved: all that the region asks less of a machine.
    """

    region: str
    keep: float
    kept: int
    tokens: int
    flops: int
    flops_saved: int
    bytes_moved: int
    bytes_saved: int
    bytes_added: int
    work_saved: Work

    def seconds_saved(self, machine: Machine) -> float:
        """Predicted; below 0 where what is added outweighs what is saved."""
        return machine.seconds(self.work_saved)


def prune_gain(analysis: Analysis, region: Region, keep: float, *, exact: bool = True) -> PruneGain:
    """What pruning a region is predicted to save in one step.

    Args:
        analysis: of the model.
        region: of it.
        keep: the share of tokens that is computed, in (0, 1].
        exact: of a plan with the exact passes, whose regions do less.

    Raises:
        PlanError: where the region cannot be pruned.
    """
    how = region.pruning
    if how is None:
        raise PlanError(f"region {region.name!r} cannot be pruned: {region.unprunable}.")
    form = exact_form(analysis).module if exact else analysis.capture.module
    [port] = region.ports
    alone = _alone(form.graph, port.entry or "", port.value)
    names = {node.name for node in alone.graph.nodes} - {port.value}
    flops, moved = sum(count_flops(alone.graph).values()), count_bytes(alone.graph)
    # A region is pruned among others, which keep the heap as wide as they do.
    largest = largest_value(analysis.capture.module.graph)
    before = work_of_graph(alone.graph, largest)
    how.prune(region.name, port, slot_name(region.name), keep).apply(alone)
    own, added = _bytes(alone.graph, names)
    return PruneGain(
        region=region.name,
        keep=keep,
        kept=kept_count(keep, how.tokens),
        tokens=how.tokens,
        flops=flops,
        flops_saved=flops - sum(count_flops(alone.graph).values()),
        bytes_moved=moved,
        bytes_saved=moved - own,
        bytes_added=added,
        work_saved=before - work_of_graph(alone.graph, largest),
    )


def gains_of(analysis: Analysis, key: VariantKey) -> tuple[PruneGain, ...]:
    """What each region that a variant prunes is predicted to save; equal ones are counted once."""
    regions: Mapping[str, Region] = {region.name: region for region in analysis.regions}
    known: dict[object, PruneGain] = {}
    found: list[PruneGain] = []
    for name, action in key.actions:
        region = regions[name]
        if action.keep is None or region.pruning is None:
            continue
        how = region.pruning
        case = (action.keep, region.flops, region.slot_bytes, how.layout, how.rows, how.pooled)
        if case not in known:
            known[case] = prune_gain(analysis, region, action.keep, exact=key.exact)
        found.append(replace(known[case], region=name))
    return tuple(found)


def _alone(graph: fx.Graph, entry: str, value: str) -> fx.GraphModule:
    """A graph of what only the region executes; what it takes from elsewhere comes in."""
    nodes: dict[str, fx.Node] = {node.name: node for node in graph.nodes}
    inside = set(only_for(nodes[value], nodes[entry]))
    outside: Sequence[fx.Node] = list(
        dict.fromkeys(
            operand
            for node in graph.nodes
            if node in inside
            for operand in (nodes[entry], *node.all_input_nodes)
            if operand not in inside
        )
    )
    own = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    for node in (*outside, *(node for node in graph.nodes if node in inside)):
        if node in inside:
            env[node] = own.node_copy(node, env.__getitem__)
        else:
            env[node] = own.placeholder(node.name)
            env[node].meta["val"] = node.meta["val"]
        env[node].name = node.name
    own.output((map_arg(nodes[value], env.__getitem__),))
    return fx.GraphModule({}, own)


def _bytes(graph: fx.Graph, names: Collection[str]) -> tuple[int, int]:
    """Bytes of the region's own calls, and of all others: a call made twice is its own."""
    own = added = 0
    for node in graph.nodes:
        if node.name in names or node.target not in _MOVES:
            own += bytes_of(node)
        else:
            added += bytes_of(node)
    return own, added
