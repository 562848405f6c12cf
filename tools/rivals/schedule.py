"""Which steps are computed: uniform schedules, and DeepCache's non-uniform one."""

from __future__ import annotations

from collections.abc import Iterable

Computed = tuple[bool, ...]


def every(steps: int, interval: int, warmup: int = 1) -> Computed:
    """The first `warmup` steps, and every `interval`-th from the last of them.

    Args:
        steps: of the run.
        interval: 1 computes every step.
        warmup: at least 1.
    """
    return _at(steps, [*range(warmup), *range(warmup - 1, steps, interval)])


def evenly(steps: int, count: int) -> Computed:
    """`count` steps, the first among them, as evenly spaced as whole steps allow."""
    return _at(steps, [round(index * steps / count) for index in range(count)])


def around(steps: int, count: int, centre: float, power: float) -> Computed | None:
    """`count` steps that lie denser around a centre, the first among them.

    Args:
        steps: T of the run.
        count: k, how many are computed.
        centre: c, a step.
        power: p, above 1; the larger, the denser.

    Returns:
        None where whole steps fall together, so that fewer than `count` would be computed.

    Source: DeepCache (Ma et al. 2023), section 4.3: the integers of l**p + c, for k values l of
    equal distance from (-c)**(1/p) to (T - c)**(1/p); here the power keeps the sign.
    """
    low, high = _root(-centre, power), _root(steps - centre, power)
    places = [low + (high - low) * index / count for index in range(count)]
    found = {0, *(int(_raised(place, power) + centre + 1e-9) for place in places)}
    return _at(steps, found) if len(found) == count else None


def _at(steps: int, places: Iterable[int]) -> Computed:
    chosen = set(places)
    return tuple(step in chosen for step in range(steps))


def _root(value: float, power: float) -> float:
    return _raised(value, 1.0 / power)


def _raised(value: float, power: float) -> float:
    return abs(value) ** power * (1.0 if value >= 0 else -1.0)
