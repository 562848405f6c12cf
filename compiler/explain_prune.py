"""What a plan's pruned regions save and add, gathered from its steps; says where they lose time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from turbo4d.compiler.prune_gain import PruneGain, gains_of

if TYPE_CHECKING:
    from turbo4d.compiler.analysis import Analysis
    from turbo4d.compiler.machine import Machine
    from turbo4d.runtime.plan_check import PlanCheck


@dataclass(frozen=True)
class Pruned:
    """Regions that gain alike, and the steps at which they are pruned.

    Args:
        gain: of each of them.
        regions: their names.
        stream: whose steps they are.
        steps: at which.
        machine: whose time is predicted.
    """

    gain: PruneGain
    regions: tuple[str, ...]
    stream: str
    steps: tuple[int, ...]
    machine: Machine

    @property
    def seconds_saved(self) -> float:
        """Of each region at each of the steps."""
        return self.gain.seconds_saved(self.machine)

    @property
    def loses(self) -> str:
        """A sentence where more time is added than saved, else nothing."""
        saved_s = self.seconds_saved
        if saved_s >= 0:
            return ""
        gain = self.gain
        return (
            f"prune({gain.keep!r}) of {self.regions[0]!r}"
            + (f" and {len(self.regions) - 1} like it" if len(self.regions) > 1 else "")
            + f" is predicted to lose {-saved_s * 1e3:.3g} ms each on {self.machine.name}: it adds "
            f"{gain.bytes_added} bytes and saves {gain.bytes_saved}, with {gain.flops_saved} "
            "operations. Compute or reuse it, or keep fewer tokens."
        )

    def as_json(self) -> dict[str, Any]:
        """As explain prints it."""
        gain = self.gain
        return {
            "regions": list(self.regions),
            "keep": gain.keep,
            "kept": gain.kept,
            "tokens": gain.tokens,
            "stream": self.stream,
            "steps": list(self.steps),
            "flops_saved": gain.flops_saved,
            "bytes_saved": gain.bytes_saved,
            "bytes_added": gain.bytes_added,
            "seconds_saved": self.seconds_saved,
        }


def pruned_of(analysis: Analysis, check: PlanCheck, machine: Machine) -> tuple[Pruned, ...]:
    """What a plan prunes, region by region alike, in the order of the graph."""
    gains = {key: gains_of(analysis, key) for key in check.variants}
    steps: dict[tuple[str, PruneGain], list[int]] = {}
    for stream, keys in check.keys.items():
        for step, key in enumerate(keys):
            for gain in gains[key] if key is not None else ():
                steps.setdefault((stream, gain), []).append(step)
    return tuple(_alike(steps, machine))


def _alike(steps: dict[tuple[str, PruneGain], list[int]], machine: Machine) -> Iterator[Pruned]:
    groups: dict[object, list[PruneGain]] = {}
    for (stream, gain), at in steps.items():
        figures = tuple(value for name, value in vars(gain).items() if name != "region")
        groups.setdefault((stream, tuple(at), figures), []).append(gain)
    for of in groups.values():
        stream, at = next((s, at) for (s, gain), at in steps.items() if gain is of[0])
        yield Pruned(of[0], tuple(gain.region for gain in of), stream, tuple(at), machine)
