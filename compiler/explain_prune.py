"""What pruning saves and adds, for a reader at a terminal and as JSON; says where it loses time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from turbo4d.compiler.prune_gain import MEASURED, PruneGain, gains_of
from turbo4d.compiler.units import bytes_text, flops_text, ranges, starred, table

if TYPE_CHECKING:
    from turbo4d.compiler.explain import Explanation

Steps = Mapping[tuple[str, float], tuple[PruneGain, Sequence[int]]]
