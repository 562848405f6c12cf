"""passage: how much of a run passes between two of its noise levels, as a share of the whole run.

A sampler adds what a network gives, times the change of the noise: of sigma where the network tells
the noise, of sigma / (1 + sigma) where it tells a flow's velocity. What a step gets wrong weighs as
much. Both are counted, the second for more. A schedule that begins with noise alone is counted by
the second only: what a network could tell of its first levels is next to nothing. By level, never
by index: on nano, trained, plans by the share of the steps lost 6 dB to these (speed-log.md).

What a reuse gets wrong grows with what passed since its slot was written, and it weighs as much as
the step itself lets pass, down to no noise after the last one: DDIM's last step often takes away
three times what another does. The square root of the latter is counted, measured beside the whole
of it and none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_NOISE_ALONE = 20.0
_OF_FLOW = 0.7  # measured beside 0.5, 0.8 and 1; see tools/results/speed-log.md
_LIGHTEST = 0.1  # in units of the mean step


class Passage:
    """Measures a schedule.

    Args:
        sigmas: of the steps, falling.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        self._sigmas = sigmas
        of_flow = 1.0 if sigmas[0] > _NOISE_ALONE else _OF_FLOW
        levels = [*sigmas, 0.0]
        flows = _shares([sigma / (1 + sigma) for sigma in levels], of_flow)
        noises = _shares(levels, 1 - of_flow)
        self._places = [flow + noise for flow, noise in zip(flows, noises, strict=True)]

    def between(self, since: int, step: int) -> float:
        """The share of the run that passes from one step to a later one.

        Args:
            since: a step.
            step: a later one; the number of the steps for the run's end, where no noise is left.
        """
        return self._places[since] - self._places[step]

    def weighed(self, since: int, step: int) -> float:
        """What passes from one step to a later one, times the root of the later one's own weight.

        A step weighs 1 that lets as much pass as the mean one of the run, and at least `_LIGHTEST`:
        no slot serves from one end of a run to the other.
        """
        weight = self.between(step, step + 1) * len(self._sigmas)
        return self.between(since, step) * math.sqrt(max(weight, _LIGHTEST))

    def apart(self, since: int, step: int) -> float:
        """How far apart the two are in ln(sigma), over which slots are extrapolated."""
        return math.log(self._sigmas[since] / self._sigmas[step])


def _shares(falling: Sequence[float], weight: float) -> list[float]:
    """Values scaled so that the first and the last are a weight apart."""
    whole = falling[0] - falling[-1]
    return [weight * value / whole for value in falling]
