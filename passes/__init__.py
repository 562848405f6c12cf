"""Graph rewrites, one per file.

`ALL_PASSES` stands in the order in which a variant applies them:

1. record-slot first: an output then follows every later replacement, whereas a node that another
   pass replaced can no longer be found by name;
2. bypass-region, the last region of the graph first: a region's entry may be the exit of the one
   before it;
3. reuse-region, the first region of the graph first: a later one may take the last use of an
   earlier one's value, which is then gone, and its slot unused;
4. fold-single-key-attention, on what is left.
"""

from .base import Pass, PassError, PassReport, Skip
from .bypass_region import BypassRegion
from .fold_single_key_attention import FoldSingleKeyAttention
from .record_slot import RecordSlot
from .reuse_region import ReuseRegion

ALL_PASSES: tuple[type[Pass], ...] = (
    RecordSlot,
    BypassRegion,
    ReuseRegion,
    FoldSingleKeyAttention,
)

__all__ = [
    "ALL_PASSES",
    "BypassRegion",
    "FoldSingleKeyAttention",
    "Pass",
    "PassError",
    "PassReport",
    "RecordSlot",
    "ReuseRegion",
    "Skip",
]
