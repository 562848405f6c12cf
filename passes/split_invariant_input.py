"""split-invariant-input: the first product of an input, apart for the channels that never change.

    rewrite:  %y = conv2d(%x, %w, %b)
       ->     %y = add(conv2d(%x[:, changing], %w[:, changing]),
                       conv2d(%x[:, fixed], %w[:, fixed], %b))     # the prologue's

Requires  `input` is read by convolutions of one group, or by linears, directly. Channels are its
          second axis, which is also that of a weight.
Ensures   what those channels add is a value of its own, which depends on nothing that changes. It
          is as large as the product, and added at each step: of SV4D's first convolution (four
          channels of eight, 3 x 3) that saves 36 operations a step for each byte held, in
          bfloat16. Hence only on request.
Error     rounding: a sum over all channels is taken in two parts.
Source    linearity. SV4D packs the noisy latent and the latent of a conditioning view in one input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import fx

from .base import Pass, PassError, PassReport, aten, become, emit

_CONVOLUTIONS = (
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
)
_GROUPS = 6  # position of the argument in all of them
CHANNELS = 1  # axis of every input

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class SplitInvariantInput(Pass):
    """Splits the products of one input.

    Args:
        input: name of the placeholder.
        fixed: its channels that never change, as ranges (start, stop), in order.
    """

    name: ClassVar[str] = "split-invariant-input"
    input: str
    fixed: Ranges

    def rewrite(self, gm: fx.GraphModule, report: PassReport) -> None:
        """Split each product that reads the input; say what else reads it."""
        source = self.find(gm.graph, self.input, "invariant")
        count = source.meta["val"].shape[CHANNELS]
        changing = complement(self.fixed, count)
        if not changing or any(stop > count for _, stop in self.fixed):
            raise PassError(
                self.name,
                f"%{source.name}",
                f"it has {count} channels and {list(self.fixed)} of them are fixed",
                "some channels must change and no others exist",
                "Name ranges within the channels, not all of them",
                [source],
            )
        for user in list(source.users):
            if reason := _why_not(user, source):
                report.skip(user, reason)
                continue
            with gm.graph.inserting_before(user):
                parts = [
                    _product(user, changing, biased=False),
                    _product(user, self.fixed, biased=True),
                ]
            become(user, aten.add.Tensor, *parts)
            report.rewrote(user, f"%{parts[0].name} + %{parts[1].name}")


def complement(ranges: Sequence[tuple[int, int]], count: int) -> Ranges:
    """The channels that are in no range."""
    starts = [0, *(stop for _, stop in ranges)]
    stops = [*(start for start, _ in ranges), count]
    return tuple((a, b) for a, b in zip(starts, stops, strict=True) if a < b)


def _why_not(user: fx.Node, source: fx.Node) -> str | None:
    wanted = 1 if user.target in _CONVOLUTIONS else source.meta["val"].dim() - 1
    if user.target not in (*_CONVOLUTIONS, aten.linear.default):
        return f"it is {user.target}; only a convolution or a linear can be split"
    if user.args[0] is not source or source in user.args[1:]:
        return "the input is its weight"
    if len(user.args) > _GROUPS and user.args[_GROUPS] != 1:
        return f"it has {user.args[_GROUPS]} groups"
    if wanted != CHANNELS:
        return f"it takes products over axis {wanted}, the channels are axis {CHANNELS}"
    return None


def _product(user: fx.Node, ranges: Ranges, *, biased: bool) -> fx.Node:
    target: Any = user.target
    source, weight, *rest = user.args
    if rest and not biased:
        rest = [None, *rest[1:]]
    return emit(user.graph, target, _part(source, ranges), _part(weight, ranges), *rest)


def _part(node: Any, ranges: Ranges) -> fx.Node:
    graph: fx.Graph = node.graph
    slices = [emit(graph, aten.slice.Tensor, node, CHANNELS, a, b) for a, b in ranges]
    if len(slices) > 1:
        return emit(graph, aten.cat.default, slices, CHANNELS)
    return slices[0]
