"""bypass-region: leave a region out; what comes in goes on.

    rewrite:  %exit = <the region>(%entry, ...)
       ->     %entry

Requires  entry and exit agree in shape and dtype.
Ensures   the region's own calls are gone; strides downstream are brought up to date.
Error     the whole of the region's residual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from .base import Pass, PassError, PassReport, layout, replace


@dataclass(frozen=True)
class BypassRegion(Pass):
    """Omits one region.

    Args:
        region: its name, for the report.
        entry: the node through which the stream comes in.
        exit: the node through which it goes on.
    """

    name: ClassVar[str] = "bypass-region"
    region: str
    entry: str
    exit: str

    def rewrite(self, gm: fx.GraphModule, report: PassReport) -> None:
        """Use the entry where the exit was used."""
        entry = self.find(gm.graph, self.entry, self.region)
        exit_ = self.find(gm.graph, self.exit, self.region)
        got, wanted = layout(entry.meta["val"])[:2], layout(exit_.meta["val"])[:2]
        if got != wanted:
            raise PassError(
                self.name,
                f"%{exit_.name} ({self.region})",
                f"the entry is {_text(*got)} and the exit {_text(*wanted)}",
                "a region left out must agree in both",
                "Bypass a smaller region, or reuse this one",
                [entry, exit_],
            )
        if entry is exit_ or not exit_.users:
            report.skip(exit_, "the region is empty")
            return
        replace(exit_, entry)
        report.rewrote(exit_, f"%{entry.name}")


def _text(shape: object, dtype: object) -> str:
    return f"{str(dtype).removeprefix('torch.')}{list(shape)}"  # type: ignore[call-overload]
