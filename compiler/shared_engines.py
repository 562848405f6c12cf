"""One engine for all variants of a denoiser: option `conditional`.

It is built at the first call, for all variants that were asked for by then, which are those of a
whole stream; and anew where one comes that it does not hold, as of a session with another plan.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from turbo4d.runtime.conditional_engine import ConditionalEngine, SharedEngine
from turbo4d.runtime.engine import Engine
from turbo4d.runtime.log import say
from turbo4d.runtime.variant_key import VariantKey

from .conditional import check_flags, conditional
from .specialise import Variant

if TYPE_CHECKING:
    from .analysis import Analysis


class SharedEngines:
    """Gives the engine of a variant; all that are exact share one, and all that are plain.

    Args:
        analysis: of the model.
        lower: makes the engine of a conditional variant.
        merge_projections: see `exact.exact_form`.
    """

    def __init__(
        self,
        analysis: Analysis,
        lower: Callable[[Variant], Engine],
        *,
        merge_projections: bool = False,
    ) -> None:
        self._analysis = analysis
        self._lower = lower
        self._merge = merge_projections
        self._regions = {region.name: region for region in analysis.regions}
        self._asked: dict[bool, list[VariantKey]] = {True: [], False: []}
        self._built: dict[bool, SharedEngine] = {}
        self._lock = threading.Lock()

    def __call__(self, key: VariantKey) -> ConditionalEngine:
        """The engine of one variant.

        Raises:
            PlanError: a key that no graph can be made for, or one that flags cannot tell.
        """
        check_flags(key, self._regions)
        with self._lock:
            asked = self._asked[key.exact]
            if not _within(key, asked):
                self._built.pop(key.exact, None)
            asked.append(key)
        reads, writes = (
            tuple(name for name in names for _ in self._regions[name].ports)
            for names in (key.reads, key.writes)
        )
        return ConditionalEngine(key, reads, writes, lambda: self._shared(key.exact))

    def _shared(self, exact: bool) -> SharedEngine:
        # What is built stays until more is asked for: a thread need not wait while another builds.
        if (built := self._built.get(exact)) is not None:
            return built
        with self._lock:
            if exact not in self._built:
                start_s = time.perf_counter()
                keys = self._asked[exact]
                variant = conditional(self._analysis, keys, merge_projections=self._merge)
                forms = [(tuple(v.shape), v.dtype) for v in variant.slot_values]
                self._built[exact] = SharedEngine(self._lower(variant), variant.flags, forms)
                took_s = time.perf_counter() - start_s
                say(
                    1,
                    f"conditional engine of {len(variant.flags)} regions: built in {took_s:.2f} s.",
                )
            return self._built[exact]


def _within(key: VariantKey, asked: list[VariantKey]) -> bool:
    """Whether an engine for those asked for has the flags and the slots of this one."""
    acting = {name for one in asked for name in (*dict(one.actions), *one.writes)}
    slots = {name for one in asked for name in (*one.reads, *one.writes)}
    return acting.issuperset(dict(key.actions)) and slots.issuperset((*key.reads, *key.writes))
