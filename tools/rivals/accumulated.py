"""What the adaptive rivals share: thresholds to sweep, and who computes once a sum is spent."""

from __future__ import annotations

from collections.abc import Sequence

from turbo4d.tools.rivals.schedule import Computed


def thresholds(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` values from low to high in equal ratios, to three digits."""
    ratio = (high / low) ** (1 / (count - 1))
    return tuple(float(f"{low * ratio**index:.3g}") for index in range(count))


def until_spent(changes: Sequence[float], threshold: float, warmup: int, last: bool) -> Computed:
    """Steps are reused while the changes since the last computed one sum to less than a threshold.

    Args:
        changes: of each step but the first since the one before.
        threshold: at which a step is computed and the sum starts anew.
        warmup: first steps that are computed, at least 1.
        last: whether the last step is computed too.
    """
    computed, spent = [True], 0.0
    for step, change in enumerate(changes, start=1):
        spent += change
        forced = step < warmup or (last and step == len(changes))
        computed.append(forced or spent >= threshold)
        if computed[-1]:
            spent = 0.0
    return tuple(computed)
