"""What the benchmark reads of torch's private parts.

Relies on `torch._dynamo.utils.counters`: "graph_break" counts by reason, "stats" has
"unique_graphs" and "calls_captured"; and on frames whose compile ids end in `/n` with n > 0 being
recompilations, as `torch._dynamo.utils.compilation_time_metrics` and `get_compilation_metrics`
list them.
"""

from __future__ import annotations

import sys


def graph_breaks() -> int | None:
    """How often Dynamo broke a graph in this process; None where it was not loaded."""
    if "torch._dynamo" not in sys.modules:
        return None
    from torch._dynamo.utils import counters

    return sum(counters["graph_break"].values())


def recompiles() -> int | None:
    """How often Dynamo compiled a frame again in this process; None where it was not loaded."""
    if "torch._dynamo" not in sys.modules:
        return None
    from torch._dynamo.utils import get_compilation_metrics

    ids = [str(each.compile_id) for each in get_compilation_metrics() if each.compile_id]
    return sum(one.rpartition("/")[2].partition("_")[0] not in ("", "0") for one in ids)
