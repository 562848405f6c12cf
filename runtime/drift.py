"""How far a region's value drifts from one noise level to another, as measured on nano-v1."""

from __future__ import annotations

from collections.abc import Mapping

from .region_info import RegionKind

# Per kind of region, drift per unit of ln(sigma) at points of ln(sigma), rising; linear between,
# constant beyond: the relative error of the final latent when the kind's regions take what they
# computed at the step before. Of levels the outermost are reused. Measured on nano-v1, 20 steps, by
# tools/measure/drift.py (tools/results/drift-nano-v1.json); another network on the same schedule
# may drift otherwise. Blocks were not measured: they take the chains' table.
DRIFT: Mapping[RegionKind, tuple[tuple[float, float], ...]] = {
    "core": (
        (-5.369, 0.000155),
        (-3.842, 0.003317),
        (-2.592, 0.017934),
        (-1.532, 0.02802),
        (-0.613, 0.076835),
        (0.199, 0.139352),
        (0.927, 0.086465),
        (1.585, 0.030715),
        (2.187, 0.010578),
        (2.742, 0.003071),
        (3.255, 0.000858),
        (3.733, 0.000263),
        (4.181, 9.4e-05),
        (4.602, 3.9e-05),
        (4.999, 1.9e-05),
        (5.374, 1e-05),
        (5.731, 6e-06),
        (6.07, 3e-06),
        (6.393, 2e-06),
    ),
    "level": (
        (-5.369, 3.7e-05),
        (-3.842, 0.000265),
        (-2.592, 0.001067),
        (-1.532, 0.003394),
        (-0.613, 0.008171),
        (0.199, 0.014334),
        (0.927, 0.017914),
        (1.585, 0.008782),
        (2.187, 0.003923),
        (2.742, 0.001205),
        (3.255, 0.000319),
        (3.733, 0.000118),
        (4.181, 5.2e-05),
        (4.602, 2.5e-05),
        (4.999, 1.4e-05),
        (5.374, 8e-06),
        (5.731, 5e-06),
        (6.07, 3e-06),
        (6.393, 2e-06),
    ),
    "chain": (
        (-5.369, 0.000152),
        (-3.842, 0.003273),
        (-2.592, 0.01772),
        (-1.532, 0.026162),
        (-0.613, 0.067902),
        (0.199, 0.127231),
        (0.927, 0.082905),
        (1.585, 0.029434),
        (2.187, 0.009877),
        (2.742, 0.002827),
        (3.255, 0.000791),
        (3.733, 0.000248),
        (4.181, 9e-05),
        (4.602, 3.7e-05),
        (4.999, 1.8e-05),
        (5.374, 9e-06),
        (5.731, 5e-06),
        (6.07, 3e-06),
        (6.393, 2e-06),
    ),
}
_MEASURED_AS: Mapping[RegionKind, RegionKind] = {"block": "chain"}


def measured_as(kind: RegionKind) -> RegionKind:
    """The kind whose table stands for a kind that was not measured."""
    return _MEASURED_AS.get(kind, kind)
