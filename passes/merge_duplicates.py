"""merge-duplicates: one call for every set of equal calls.

    rewrite:  %a = silu(%x), %b = silu(%x)
       ->     %a = silu(%x)               # read wherever %b was

Requires  a functional graph: equal operators on equal arguments give equal values.
Ensures   no two calls are the same operator on the same arguments, but those that `keep` names.
Error     none, to the bit.
Source    common subexpression elimination. A denoiser's modules each prepare the conditioning anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import fx

from .base import Pass, PassReport


@dataclass(frozen=True)
class MergeDuplicates(Pass):
    """Keeps the first of equal calls.

    Args:
        keep: names of nodes that must stay what they are.
    """

    name: ClassVar[str] = "merge-duplicates"
    keep: tuple[str, ...] = ()

    def rewrite(self, gm: fx.GraphModule, report: PassReport) -> None:
        """Read the first of equal calls where a later one was read."""
        kept = frozenset(self.keep)
        first: dict[Any, fx.Node] = {}
        for node in list(gm.graph.nodes):
            if node.op != "call_function":
                continue
            earlier = first.setdefault(
                (node.target, _frozen(node.args), _frozen(node.kwargs)), node
            )
            if earlier is node:
                continue
            if node.name in kept:
                report.skip(node, f"the same as %{earlier.name}, but a region knows it by name")
                continue
            node.replace_all_uses_with(earlier)
            gm.graph.erase_node(node)
            report.rewrote(node, f"%{earlier.name}")


def _frozen(value: Any) -> Any:
    """An argument as a key: 1 and 1.0 and True, which are equal, stay apart."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(part) for part in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return tuple((key, _frozen(part)) for key, part in sorted(value.items()))  # pyright: ignore
    return value if isinstance(value, fx.Node) else (type(value), value)
