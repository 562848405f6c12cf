"""reuse-region: take a region's value from its slot instead of computing it.

    rewrite:  %value = <the region>(%entry, ...)     # residual: %exit = add(%entry, %value)
       ->     %slot_<region>                         # residual: %exit = add(%entry, %slot_<region>)

Requires  `value` names a node that every path through the region to the outputs goes through.
Ensures   the region's own calls are gone; one more placeholder, after all others.
Error     the drift of the value since the slot was written; the plan bounds the slot's age.
Source    DeepCache (Ma et al. 2023) and TeaCache reuse outputs and residuals the same way, between
          calls of a module; here the cached value is an input of the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from .base import Pass, PassError, PassReport, add_slot, replace


@dataclass(frozen=True)
class ReuseRegion(Pass):
    """Reads the slot of one region.

    Args:
        region: its name, for the report.
        value: the node that the slot stands for.
        slot: name of the placeholder to add.
    """

    name: ClassVar[str] = "reuse-region"
    region: str
    value: str
    slot: str

    def rewrite(self, gm: fx.GraphModule, report: PassReport) -> None:
        """Put the slot in the value's place."""
        value = self.find(gm.graph, self.value, self.region)
        if any(node.name == self.slot for node in gm.graph.nodes):
            raise PassError(
                self.name,
                f"%{value.name} ({self.region})",
                f"the graph already has a node %{self.slot}",
                "a region's slot enters once",
                "Reuse each region once, and no two whose names differ only in dots",
            )
        slot = add_slot(gm.graph, self.slot, value)
        replace(value, slot)
        report.rewrote(value, f"%{slot.name}")
