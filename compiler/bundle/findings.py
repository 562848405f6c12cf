"""What verification finds: a row for each engine of a bundle, and one for its whole run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from turbo4d.compiler.bundle.reference import Reference
from turbo4d.runtime.bundle.denoiser import BundleDenoiser
from turbo4d.runtime.bundle.manifest import Manifest

Status = Literal["passed", "failed", "not run"]
AS_BUILT, STAND_IN = "as built", "stand-in"
WHOLE_RUN = "whole run"


@dataclass(frozen=True)
class Checked:
    """One row of what was found.

    Args:
        name: of a variant, "prologue", or `WHOLE_RUN`.
        by: whether its engine ran as it was built, or another in its place.
        status: what came of it.
        reason: why it did not run, "" where it did.
        errors: relative, by what the engine gives: "output 0", "slot mid.chain", "step 3".
        tolerance: the largest that is allowed.
        layer: of a failure, where in the graph the values go apart, or what else is wrong.
    """

    name: str
    by: str
    status: Status
    reason: str = ""
    errors: Mapping[str, float] = field(default_factory=dict[str, float])
    tolerance: float = 0.0
    layer: str = ""

    @property
    def worst(self) -> tuple[str, float] | None:
        """What is furthest from what was wanted, and how far."""
        return max(self.errors.items(), key=lambda item: item[1], default=None)


@dataclass(frozen=True)
class Verification:
    """What was found.

    Args:
        manifest: of the bundle, whose files are all what it says.
        rows: of each engine, and of the run.
        measured_by: what computed the errors.
        reference: what was compared with; None where the bundle holds nothing.
        denoiser: that ran, None where none could.
    """

    manifest: Manifest
    rows: tuple[Checked, ...]
    measured_by: str
    reference: Reference | None
    denoiser: BundleDenoiser | None

    def failures(self, require_run: bool) -> tuple[Checked, ...]:
        """The rows for which verification fails.

        Args:
            require_run: whether engines must have run as they were built.
        """
        bad = ("failed", "not run") if require_run else ("failed",)
        return tuple(row for row in self.rows if row.status in bad)


def looked_at(manifest: Manifest) -> list[str]:
    """The names of what there is to verify: the prologue, then the variants."""
    first = [] if manifest.prologue is None else [manifest.prologue]
    return [*first, *(row.key.name for row in manifest.variants)]
