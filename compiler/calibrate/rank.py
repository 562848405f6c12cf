"""rank: whether two figures put the same things in the same order."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, equal values sharing their mean rank; None where it has none.

    Args:
        first: at least two values.
        second: as many.
    """
    ranks = _ranks(first), _ranks(second)
    if any(len(set(of)) < 2 for of in ranks):
        return None
    return statistics.correlation(*ranks)


def _ranks(values: Sequence[float]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]
