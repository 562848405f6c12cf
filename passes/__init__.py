"""Graph rewrites, one per file.

`ALL_PASSES` stands in the order in which they are applied. Exact passes come first, once for a
model, on a copy of its graph:

1. fold-single-key-attention, which leaves values repeated for each query;
2. sink-expand, which moves those repeats, and others, behind what is computed from them;
3. split-invariant-input, where the caller declared channels that do not change;
4. merge-duplicates, on what is left;
5. merge-shared-projections, if asked for. The compiler then hoists what depends on no sample and
   no level into the prologue.

Then those that carry out a row of the plan:

6. record-slot and record-relevance first: an output then follows every later replacement, whereas
   a node that another pass replaced can no longer be found by name;
7. bypass-region, prune-tokens and
8. reuse-region, by turns, the last region of the graph first: a region's entry may be the exit of
   the one before it, and is looked for by name.
"""

from .base import Pass, PassError, PassReport, Skip
from .bypass_region import BypassRegion
from .fold_single_key_attention import FoldSingleKeyAttention
from .merge_duplicates import MergeDuplicates
from .merge_shared_projections import MergeSharedProjections
from .prune_tokens import PruneTokens
from .record_relevance import RecordRelevance
from .record_slot import RecordSlot
from .reuse_region import ReuseRegion
from .sink_expand import SinkExpand
from .split_invariant_input import SplitInvariantInput

ALL_PASSES: tuple[type[Pass], ...] = (
    FoldSingleKeyAttention,
    SinkExpand,
    SplitInvariantInput,
    MergeDuplicates,
    MergeSharedProjections,
    RecordSlot,
    RecordRelevance,
    BypassRegion,
    PruneTokens,
    ReuseRegion,
)

__all__ = [
    "ALL_PASSES",
    "BypassRegion",
    "FoldSingleKeyAttention",
    "MergeDuplicates",
    "MergeSharedProjections",
    "Pass",
    "PassError",
    "PassReport",
    "PruneTokens",
    "RecordRelevance",
    "RecordSlot",
    "ReuseRegion",
    "SinkExpand",
    "Skip",
    "SplitInvariantInput",
]
