"""record-slot: return what a region's slot holds as well, for a later step to read.

    rewrite:  return [%y]
       ->     return [%y, %value]         # or clone(%value), where it does not own its memory
       or     return [%y, sub(%value, %entry)]     # where an entry is given

Requires  `value` names a node of the graph; so does `entry`, where given, and the two agree in
          shape and dtype.
Ensures   one more output, after all others; it shares no memory with an input or another output,
          and holds no larger tensor alive.
Error     none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from .base import Pass, PassReport, aten, emit, owner, return_also


@dataclass(frozen=True)
class RecordSlot(Pass):
    """Writes the slot of one value of a region's cut.

    Args:
        region: its name, for the report.
        value: the node to return.
        entry: the node to subtract from it first; "" for none.
    """

    name: ClassVar[str] = "record-slot"
    region: str
    value: str
    entry: str = ""

    def rewrite(self, gm: fx.GraphModule, report: PassReport) -> None:
        """Return the value; `own_outputs` clones it where it aliases an input or an output."""
        value = recorded = self.find(gm.graph, self.value, self.region)
        if self.entry:
            entry = self.find(gm.graph, self.entry, self.region)
            with gm.graph.inserting_after(value):
                recorded = emit(gm.graph, aten.sub.Tensor, value, entry)
        elif owner(value).meta["val"].numel() != value.meta["val"].numel():
            with gm.graph.inserting_after(value):
                recorded = emit(gm.graph, aten.clone.default, value)
        return_also(gm.graph, recorded)
        report.rewrote(value, f"slot {self.region}")
