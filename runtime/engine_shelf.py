"""The engines of one denoiser, and the count of their calls."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

from torch import Tensor

from .engine import Engine
from .errors import Turbo4DError
from .variant_key import VariantKey


class EngineShelf:
    """Builds each engine once; sessions and threads share it.

    Args:
        build: makes the engine of a variant.
    """

    def __init__(self, build: Callable[[VariantKey], Engine]) -> None:
        self._build = build
        self._engines: dict[VariantKey, Engine] = {}
        self._lock = threading.Lock()

    def get(self, key: VariantKey) -> Engine:
        """The engine of a variant, built if need be.

        Raises:
            Turbo4DError: where the engine's slots are not those of the variant.
        """
        with self._lock:
            if key not in self._engines:
                engine = self._build(key)
                if (sorted(engine.reads), sorted(engine.writes)) != ([*key.reads], [*key.writes]):
                    raise Turbo4DError(
                        f"engine {key.name!r} reads {engine.reads} and writes {engine.writes}; its "
                        f"variant reads {key.reads} and writes {key.writes}."
                    )
                self._engines[key] = engine
            return self._engines[key]


class CallCounts:
    """How often each variant was called; the only place that calls engines."""

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
