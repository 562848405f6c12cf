"""The share of the operations that a system carries out, which says why it is as fast as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from .cases import Case, Example, case
from .prepared import Prepared
from .sampling import sample


def operations_share(of: Case, system: Prepared, example: Example) -> float:
    """Of the uncached sample's operations; counted in eager runs, not in timed ones.

    Args:
        of: the case, its network patched by the system.
        system: as it samples; a network compiled by torch is counted uncompiled.
        example: to sample.
    """
    plain = case(of.model, of.size)
    whole = _counted(lambda: sample(plain, plain.network, example))
    system.reset()
    network: Any = getattr(system.denoiser, "_orig_mod", system.denoiser)
    return _counted(lambda: sample(of, network, example, system.before)) / whole


def _counted(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
