"""What a run is expected to take, to try the cheap settings first; nothing of it is reported."""

from __future__ import annotations

from turbo4d.compiler.costs import variant_flops
from turbo4d.compiler.specialise import specialise
from turbo4d.compiler.traffic import count_bytes
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.sampling import Turbo

# Two cores, as tools/results/steps-nano-v1.json has them: what a setting's place among the others
# of its system depends on is their quotient alone.
_FLOP_PER_S, _BYTE_PER_S = 7.4e11, 9.2e9
_COMPUTED = VariantKey((), (), exact=True)


class Effort:
    """Seconds by operations and bytes.

    Args:
        turbo: the network, sampled once.
    """

    def __init__(self, turbo: Turbo) -> None:
        self._turbo = turbo
        self._seconds: dict[VariantKey, float] = {}

    def of(self, run: Plan | tuple[str, int]) -> float:
        """Of a plan, or of solver and steps of a run that computes each."""
        if not isinstance(run, Plan):
            return run[1] * self._step(_COMPUTED)
        keys = run.check(self._turbo.regions).keys
        return sum(self._step(key) for of in keys.values() for key in of if key is not None)

    def _step(self, key: VariantKey) -> float:
        if self._turbo.analysis is None:
            raise ValueError("rivals: the network has not been sampled yet")
        if key not in self._seconds:
            variant = specialise(self._turbo.analysis, key)
            moved = count_bytes(variant.module.graph)
            self._seconds[key] = variant_flops(variant) / _FLOP_PER_S + moved / _BYTE_PER_S
        return self._seconds[key]
