"""What a suite is: a module that lists rows, and makes of each a job that a process runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from turbo4d.tools.bench.row import RowResult, RowSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Suite -> its module, which is imported only when it is asked for.
SUITES: Mapping[str, str] = {
    "cpu": "turbo4d.tools.bench.cpu_suite",
    "gpu": "turbo4d.tools.bench.gpu_suite",
    "peers": "turbo4d.tools.bench.peers.suite",
    "soak": "turbo4d.tools.bench.soak",
}


@dataclass(frozen=True)
class SuiteOptions:
    """What a call says to a suite.

    Args:
        quick: fewer rows and runs.
        runs: timed runs of each row; None for the suite's own.
        scenes: held-out scenes that runs go through in turn.
        sessions: of a soak.
        seed: of the noise.
        device: "auto", "cpu" or "cuda".
        model: of suites that run more than one; None for the suite's own.
    """

    quick: bool = False
    runs: int | None = None
    scenes: int = 2
    sessions: int = 500
    seed: int = 0
    device: str = "auto"
    model: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Job(Protocol):
    """One row, in its own process. It is made by the suite's `prepare`, which loads the model."""

    @property
    def device(self) -> torch.device:
        """Waited for before each reading of the clock."""
        ...

    def first(self) -> None:
        """The first whole run: it compiles. Timed by the worker."""
        ...

    def run(self) -> Tensor:
        """A whole run, from noise to latent in a fresh session. Timed by the worker."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What is to be said of the row, as JSON; after the last run, not timed."""
        ...

    def close(self) -> None:
        """Let go of what the process does not end by itself."""
        ...


class Suite(Protocol):
    """The module of a suite.

    It may have three functions more.
    `follow_ups(results, options) -> list[RowSpec]`: rows that depend on what a group measured,
    such as the fewer steps that fit a latency; they join the group.
    `profile(options, trace) -> str`: for --profile: writes the trace, returns a table.
    `draw(report, path)`: the picture, instead of bars.
    """

    def rows(self, options: SuiteOptions) -> list[RowSpec]:
        """The rows, in the order in which they are run; a group's first is its baseline."""
        ...

    def prepare(self, spec: RowSpec, folder: Path) -> Job:
        """The job of a row; a JobError says in a sentence why there is none.

        Args:
            spec: the row.
            folder: for files that rows share, such as uncached samples.
        """
        ...


def load_suite(name: str) -> Suite:
    """The module of a suite."""
    module: Any = import_module(SUITES[name])
    return module


def follow_ups(suite: Suite, results: Sequence[RowResult], options: SuiteOptions) -> list[RowSpec]:
    """The rows that what a group measured calls for; none where the suite knows none."""
    asked: Any = getattr(suite, "follow_ups", None)
    return [] if asked is None else asked(results, options)
