"""Where the time of each variant of a plan goes: by region, by kind of attention, by operator.

A variant's graph is run call by call under lowering `eager`, each call timed; in turn with them the
engine runs as it is, so that the table says how far the looking disturbs. The graph itself says
which region a call belongs to: there is nothing to guess from the names of kernels.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.costs import kinds_of, nodes_of
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.flops import flops_of
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue, picker
from turbo4d.compiler.specialise import Variant, specialise
from turbo4d.compiler.traffic import bytes_of, is_view
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.bench.node_clock import clock_for, timed_calls
from turbo4d.tools.timing import timed

aten = torch.ops.aten
OUTSIDE = "other"
_SORTS: Mapping[str, frozenset[Any]] = {
    "attention": frozenset((aten.scaled_dot_product_attention.default, aten.softmax.int)),
    "convolution": frozenset(
        (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.convolution.default)
    ),
    "product": frozenset(
        (aten.linear.default, aten.matmul.default, aten.mm.default, aten.bmm.default,
         aten.addmm.default, aten.baddbmm.default)
    ),
    "norm": frozenset(
        (aten.layer_norm.default, aten.group_norm.default, aten.rms_norm.default)
    ),
    "copy": frozenset(
        (aten.clone.default, aten.contiguous.default, aten.cat.default, aten.reshape.default,
         aten.expand.default, aten.repeat.default)
    ),
}  # fmt: skip
SORTS = (*_SORTS, "elementwise")


@dataclass(frozen=True)
class Call:
    """One call of a graph.

    Args:
        name: of its node.
        op: of its operator, without namespace.
        sort: one of `SORTS`.
        kind: of the attention that it serves, or `OUTSIDE`.
        path: the regions it lies in, the outermost first.
        seconds: median of the runs.
        flops: of products.
        size_bytes: that it reads and writes.
    """

    name: str
    op: str
    sort: str
    kind: str
    path: tuple[str, ...]
    seconds: float
    flops: int
    size_bytes: int


@dataclass(frozen=True)
class VariantProfile:
    """Where the time of one variant goes.

    Args:
        name: of the variant.
        steps: of the plan that run it.
        undisturbed_s: median of the engine's own runs.
        calls: in the order they ran.
    """

    name: str
    steps: int
    undisturbed_s: float
    calls: tuple[Call, ...]

    @property
    def seconds(self) -> float:
        """Of all calls."""
        return sum(call.seconds for call in self.calls)

    def by(self, of: Callable[[Call], str]) -> dict[str, float]:
        """Seconds of the calls that have something in common, the most first."""
        found: dict[str, float] = {}
        for call in self.calls:
            found[of(call)] = found.get(of(call), 0.0) + call.seconds
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def to_json(self) -> dict[str, Any]:
        """The sums as plain values."""
        return {
            "variant": self.name,
            "steps": self.steps,
            "undisturbed_s": self.undisturbed_s,
            "profiled_s": self.seconds,
            "flops": sum(call.flops for call in self.calls),
            "bytes": sum(call.size_bytes for call in self.calls),
            "by_kind": self.by(kind_of),
            "by_region": self.by(innermost),
            "by_sort": self.by(lambda call: call.sort),
            "by_kind_and_sort": self.by(lambda call: f"{call.kind}/{call.sort}"),
        }


def kind_of(call: Call) -> str:
    """The kind of attention that a call serves."""
    return call.kind


def innermost(call: Call) -> str:
    """The smallest region that a call lies in."""
    return call.path[-1] if call.path else OUTSIDE


def profile_variants(
    analysis: Analysis,
    args: Sequence[Tensor],
    keys: Mapping[VariantKey, int],
    device: torch.device,
    *,
    runs: int = 5,
    say: Callable[[str], None] = lambda text: None,
) -> list[VariantProfile]:
    """Profiles variants; slots hold zeros.

    Args:
        analysis: of the model.
        args: flat, in the order of its table.
        keys: of the variants, and how many steps each runs.
        device: on which it all lies.
        runs: of each variant, beside one that warms up.
        say: told what is going on.
    """
    prologue: Sequence[Tensor] = ()
    if any(key.exact for key in keys):
        prologue = EagerPrologue(exact_form(analysis).prologue)(args)
    found: list[VariantProfile] = []
    for key, steps in keys.items():
        say(f"profile: {key.name}")
        variant = specialise(analysis, key)
        found.append(_profile(analysis, variant, args, prologue, steps, device, runs))
    return found


def _profile(
    analysis: Analysis,
    variant: Variant,
    args: Sequence[Tensor],
    prologue: Sequence[Tensor],
    steps: int,
    device: torch.device,
    runs: int,
) -> VariantProfile:
    own = prologue if variant.key.exact else ()
    slots = [torch.zeros(v.shape, dtype=v.dtype, device=device) for v in variant.slot_values]
    picked = picker(variant.arg_indices)(args), picker(variant.prologue_indices)(own)
    given = [*picked[0], *picked[1], *slots]
    graph, engine = variant.module.graph, EagerEngine(variant)
    seconds: dict[str, list[float]] = {}
    plain_s: list[float] = []
    for turn in range(runs + 1):
        _, plain = timed(lambda: engine(args, own, slots)[0][0], device)
        calls, _ = timed_calls(graph, given, clock_for(device))
        if turn:  # the first warms up
            plain_s.append(plain)
            for node, took_s in calls:
                seconds.setdefault(node.name, []).append(took_s)
    nodes = [node for node in graph.nodes if node.name in seconds]
    kinds, paths = kinds_of(analysis, graph), paths_of(analysis, graph)
    return VariantProfile(
        name=variant.key.name if variant.key.exact else f"plain {variant.key.name}",
        steps=steps,
        undisturbed_s=statistics.median(plain_s),
        calls=tuple(
            Call(
                name=node.name,
                op=str(node.target).removeprefix("aten.").removesuffix(".default"),
                sort=sort_of(node),
                kind=kinds.get(node.name, OUTSIDE),
                path=paths.get(node.name, ()),
                seconds=statistics.median(seconds[node.name]),
                flops=flops_of(node),
                size_bytes=bytes_of(node),
            )
            for node in nodes
        ),
    )


def paths_of(analysis: Analysis, graph: fx.Graph) -> dict[str, tuple[str, ...]]:
    """The regions that each node lies in, by node name, the largest first."""
    nodes = {node.name: node for node in graph.nodes}
    found: dict[str, tuple[str, ...]] = {}
    held = [(region.name, nodes_of(region, nodes)) for region in analysis.regions]
    for name, members in sorted(held, key=lambda one: -len(one[1])):
        for member in members:
            found[member] = (*found.get(member, ()), name)
    return found


def sort_of(node: fx.Node) -> str:
    """What sort of work a call is."""
    for sort, targets in _SORTS.items():
        if node.target in targets:
            return sort
    return "copy" if is_view(node) else "elementwise"
