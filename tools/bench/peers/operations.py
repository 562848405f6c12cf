"""The share of the operations that a system carries out, which says why it is as fast as it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.utils.flop_counter import FlopCounterMode
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.costs import variant_flops
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.region_info import RegionInfo
from turbo4d.runtime.variant_key import VariantKey

from .cases import Case, Example, case
from .prepared import Prepared
from .sampling import sample

WHOLE = 0.999  # from here on nothing was left out


def operations_share(of: Case, system: Prepared, example: Example, folder: Path) -> float:
    """Of the uncached sample's operations; counted in eager runs, not in timed ones.

    Args:
        of: the case, its network patched by the system.
        system: as it samples; a network compiled by torch is counted uncompiled.
        example: to sample.
        folder: that rows share, which keeps the uncached sample's.
    """
    system.reset()
    network: Any = getattr(system.denoiser, "_orig_mod", system.denoiser)
    return _counted(lambda: sample(of, network, example, system.before)) / _uncached(of, folder)


def plan_share(analysis: Analysis, plan: Plan, regions: Sequence[RegionInfo]) -> float:
    """The same of a plan, counted in the graphs that it runs.

    Args:
        analysis: of the network.
        plan: for it.
        regions: of the network.
    """
    by_stream = plan.check(regions).keys.values()
    keys = [key for found in by_stream for key in found if key is not None]
    flops = {key: variant_flops(specialise(analysis, key)) for key in {*keys}}
    plain = variant_flops(specialise(analysis, VariantKey((), (), exact=False)))
    prologue = exact_form(analysis).prologue.flops if plan.exact else 0
    total = sum(flops[key] for key in keys) + prologue * len(plan.streams)
    return total / (plain * len(keys))


def share_note(share: float, *, looks: bool = False) -> str:
    """A share in words.

    Args:
        share: of the operations.
        looks: whether the system decides by what it sees of the sample.
    """
    if share < WHOLE:
        return f"{share:.0%} of the operations"
    if looks:
        return (
            "nothing reused: random weights change from step to step by more than its threshold, "
            "as trained ones need not"
        )
    return "all operations"


def _uncached(of: Case, folder: Path) -> int:
    kept = folder / f"{of.size}-{of.model}.operations.json"
    if not kept.exists():
        plain = case(of.model, of.size)
        part = kept.with_suffix(f".{os.getpid()}.part")
        example = plain.example(0)
        part.write_text(json.dumps(_counted(lambda: sample(plain, plain.network, example))))
        part.replace(kept)
    return int(json.loads(kept.read_text()))


def _counted(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
