"""reuse-region: take a region's value from its slot instead of computing it.

    rewrite:  %value = <the region>(%entry, ...)     # residual: %exit = add(%entry, %value)
       ->     %slot_<region>                         # residual: %exit = add(%entry, %slot_<region>)
       or     %value = add(%entry, %slot_<region>)   # where an entry is given

Requires  `value` names a node that every path through the region to the outputs goes through; where
          `entry` is given, the slot holds what `value` is more than it.
Ensures   the region's own calls are gone; one more placeholder, after all others. With an entry,
          the node of that name stays, so that a region that begins there is still found.
Error     the drift of the value since the slot was written; the plan bounds the slot's age.
Source    DeepCache (Ma et al. 2023) and TeaCache reuse outputs and residuals the same way, between
          calls of a module; here the cached value is an input of the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from .base import Pass, PassError, PassReport, add_slot, aten, become, replace


@dataclass(frozen=True)
class ReuseRegion(Pass):
    """Reads the slot of one value of a region's cut.

    Args:
        region: its name, for the report.
        value: the node that the slot stands for.
        slot: name of the placeholder to add.
        entry: the node that the slot is added to; "" where it stands for `value` as it is.
    """

    name: ClassVar[str] = "reuse-region"
    region: str
    value: str
    slot: str
    entry: str = ""

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
        if self.entry:
            entry = self.find(gm.graph, self.entry, self.region)
            slot = add_slot(gm.graph, self.slot, value)
            slot.meta["val"] = aten.sub.Tensor(value.meta["val"], entry.meta["val"])
            become(value, aten.add.Tensor, entry, slot)
        else:
            slot = add_slot(gm.graph, self.slot, value)
            replace(value, slot)
        report.rewrote(value, f"%{slot.name}")
