"""call: whether a calibration can be carried out as it was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from turbo4d.compiler.calibrate.digest import digest
from turbo4d.compiler.calibrate.verified import Example
from turbo4d.compiler.errors import CalibrationError


def check_call(
    examples: Sequence[object],
    min_psnr_db: float,
    max_cache_bytes: int | None,
    max_variants: int,
    worst_slack_db: float,
) -> None:
    """Refuses what no calibration can keep.

    Raises:
        CalibrationError: naming what was given.
    """
    if not examples:
        raise CalibrationError("calibrate: there are no examples; give at least one, better four.")
    if not 0 < min_psnr_db < math.inf:
        raise CalibrationError(
            f"calibrate: min_psnr_db is {min_psnr_db}; wanted a number of dB above 0."
        )
    if max_cache_bytes is not None and max_cache_bytes < 0:
        raise CalibrationError(
            f"calibrate: max_cache_bytes is {max_cache_bytes}; wanted at least 0, or None for no "
            "bound."
        )
    if max_variants < 1:
        raise CalibrationError(
            f"calibrate: max_variants is {max_variants}; wanted at least 1, the graph that "
            "computes everything."
        )
    if not 0 <= worst_slack_db < math.inf:
        raise CalibrationError(
            f"calibrate: worst_slack_db is {worst_slack_db}; wanted a number of dB from 0."
        )


def named(examples: Sequence[object], names: Sequence[str]) -> tuple[Example, ...]:
    """The examples with their names, or numbers, and digests."""
    given = names or [f"example {index}" for index in range(len(examples))]
    return tuple(
        Example(name, digest(example), example)
        for name, example in zip(given, examples, strict=True)
    )


def check_apart(examples: Sequence[Example], held_out: Sequence[Example]) -> None:
    """Refuses a held-out example that is one of the others: it would prove nothing.

    Raises:
        CalibrationError: naming it.
    """
    known = {example.digest: example.name for example in examples}
    for example in held_out:
        if example.digest in known:
            raise CalibrationError(
                f"calibrate: held-out {example.name!r} equals {known[example.digest]!r}, which the "
                "plan is chosen by; hold out others."
            )
