"""The engines of one denoiser, and the count of their calls."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from torch import Tensor

from .engine import Engine, Prologue
from .errors import Turbo4DError
from .log import say
from .variant_key import VariantKey


class EngineShelf:
    """Builds each engine once, and the prologue; sessions and threads share them.

    Args:
        build: makes the engine of a variant.
        build_prologue: makes the prologue; None where nothing is hoisted.
    """

    def __init__(
        self,
        build: Callable[[VariantKey], Engine],
        build_prologue: Callable[[], Prologue] | None = None,
    ) -> None:
        self._build = build
        self._build_prologue = build_prologue
        self._engines: dict[VariantKey, Engine] = {}
        self._prologue: Prologue | None = None
        self._lock = threading.Lock()

    @property
    def has_prologue(self) -> bool:
        """Whether exact variants take values of a prologue."""
        return self._build_prologue is not None

    @property
    def built(self) -> int:
        """How many engines were built so far, the prologue among them."""
        return len(self._engines) + (self._prologue is not None)

    def get(self, key: VariantKey) -> Engine:
        """The engine of a variant, built if need be.

        Raises:
            Turbo4DError: where the engine's slots are not those of the variant.
        """
        # What is built stays, so that a thread need not wait while another builds.
        if (built := self._engines.get(key)) is not None:
            return built
        with self._lock:
            if key not in self._engines:
                start_s = time.perf_counter()
                engine = self._build(key)
                _check_slots(engine, key)
                self._engines[key] = engine
                say(1, f"engine {key.name!r}: built in {time.perf_counter() - start_s:.2f} s.")
            return self._engines[key]

    def prologue(self) -> Prologue | None:
        """The prologue, built if need be; None where nothing is hoisted."""
        if self._build_prologue is None or self._prologue is not None:
            return self._prologue
        with self._lock:
            if self._prologue is None:
                start_s = time.perf_counter()
                self._prologue = self._build_prologue()
                say(1, f"prologue: built in {time.perf_counter() - start_s:.2f} s.")
            return self._prologue


class CallCounts:
    """How often each variant and the prologue were called; the only place that calls them."""

    def __init__(self) -> None:
        self.by_variant: Counter[str] = Counter()

    def call(
        self,
        name: str,
        engine: Engine,
        args: Sequence[Tensor],
        prologue: Sequence[Tensor],
        slots_in: Sequence[Tensor],
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Calls the engine and counts it under its variant's name.

        Raises:
            Turbo4DError: where it gives another number of slots than it promised.
        """
        outputs, slots_out = engine(args, prologue, slots_in)
        self.by_variant[name] += 1
        if len(slots_out) != len(engine.writes):
            raise Turbo4DError(
                f"engine {name!r} gave {len(slots_out)} slots; wanted {len(engine.writes)}."
            )
        return outputs, slots_out

    def call_prologue(self, prologue: Prologue, args: Sequence[Tensor]) -> Sequence[Tensor]:
        """Calls the prologue and counts it as "prologue"."""
        values = prologue(args)
        self.by_variant["prologue"] += 1
        return values


def _check_slots(engine: Engine, key: VariantKey) -> None:
    """A region whose cut has several values is named once for each, in a key once."""
    if (sorted({*engine.reads}), sorted({*engine.writes})) != ([*key.reads], [*key.writes]):
        raise Turbo4DError(
            f"engine {key.name!r} reads {engine.reads} and writes {engine.writes}; its "
            f"variant reads {key.reads} and writes {key.writes}."
        )
