"""The plan: per stream and step, what is done with each region."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path

from .action import COMPUTE, Action
from .errors import PlanError
from .geometry import Geometry
from .levels import LevelUnit, check_levels
from .plan_check import PlanCheck, check
from .plan_file import SCHEMA_VERSION, fields_of, save, to_json
from .plan_settled import settled
from .region_info import RegionInfo as RegionInfo
from .region_info import RegionKind as RegionKind
from .slot_storage import check_storage
from .variant_key import VariantKey as VariantKey

# One step of one stream: region -> action, a region that is not named computes. None: the stream
# does not run at this step (SV4D's dense pass alternates between two streams).
Row = Mapping[str, Action] | None


@dataclass(frozen=True)
class Plan:
    """A schedule of actions for one model, geometry and sequence of noise levels.

    Which slots a step writes is not stored: it follows from who reads them (`check`).

    Args:
        name: the preset's, or one's own.
        model: fingerprint of the captured graph.
        geometry: what the model was captured for.
        levels: the noise level of each step, falling.
        level_unit: what `levels` are.
        streams: per stream one row per step.
        max_age: steps a slot may be old when it is read.
        max_variants: how many graphs the plan may need.
        max_cache_bytes: what all slots together may hold at any time, None for no bound.
        error_budget_db: the PSNR the plan was made to keep, None where none was asked.
        exact: whether the exact passes are on.
        origin: one line that says where the plan comes from: the command that found it and what it
            measured, or that nothing was measured. Empty where none was said.
        storage: region -> in what its slots are kept, where that is not the compute dtype.
        weights_sha256: digest of the weights that it was fitted to (`weights_digest`); empty where
            it was fitted to none, or nobody said.
        schema_version: of the file format.

    Raises:
        PlanError: where the fields contradict each other.
    """

    name: str
    model: str
    geometry: Geometry
    levels: tuple[float, ...]
    level_unit: LevelUnit
    streams: Mapping[str, tuple[Row, ...]]
    max_age: int
    max_variants: int
    max_cache_bytes: int | None = None
    error_budget_db: float | None = None
    exact: bool = True
    origin: str = ""
    storage: Mapping[str, str] = field(default_factory=dict[str, str])
    weights_sha256: str = ""
    schema_version: int = field(default=SCHEMA_VERSION)

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise PlanError(
                f"plan: schema version {self.schema_version}; this turbo4d reads {SCHEMA_VERSION}. "
                "Make the plan anew with this version."
            )
        check_levels(self.levels, self.level_unit)
        if not self.streams:
            raise PlanError("plan: it has no stream; wanted at least one, such as 'main'.")
        for stream, rows in self.streams.items():
            if len(rows) != len(self.levels):
                raise PlanError(
                    f"plan: stream {stream!r} has {len(rows)} rows; wanted one for each of the "
                    f"{len(self.levels)} levels."
                )
        if self.max_age < 0 or self.max_variants < 1:
            raise PlanError(
                f"plan: max_age is {self.max_age} and max_variants {self.max_variants}; "
                "wanted at least 0 and 1."
            )
        if self.max_cache_bytes is not None and self.max_cache_bytes < 0:
            raise PlanError(
                f"plan: max_cache_bytes is {self.max_cache_bytes}; wanted at least 0, or none for "
                "no bound."
            )
        budget = self.error_budget_db
        if budget is not None and not 0 <= budget < math.inf:
            raise PlanError(f"plan: error_budget_db is {budget}; wanted a PSNR from 0, or none.")
        if len(self.origin.splitlines()) > 1:
            raise PlanError(
                f"plan: origin has {len(self.origin.splitlines())} lines; wanted one, or none."
            )
        for region, storage in self.storage.items():
            check_storage(storage, f"plan, region {region!r}")
        # Explicit `compute` says what an absent region says, as in the rows.
        kept = {name: each for name, each in sorted(self.storage.items()) if each != "compute"}
        object.__setattr__(self, "storage", kept)
        # Explicit `compute` says what an absent region says: one spelling, so plans compare.
        object.__setattr__(
            self, "streams", {name: _spelled(rows) for name, rows in self.streams.items()}
        )

    @property
    def steps(self) -> int:
        """How many denoising steps it covers."""
        return len(self.levels)

    def rows(self, stream: str) -> tuple[Row, ...]:
        """The rows of one stream.

        Raises:
            PlanError: where the plan has no such stream.
        """
        if stream not in self.streams:
            raise PlanError(
                f"plan {self.name!r}: stream {stream!r} is unknown; it has "
                f"{', '.join(map(repr, sorted(self.streams)))}."
            )
        return self.streams[stream]

    def check(self, regions: Sequence[RegionInfo], *, offload: bool = False) -> PlanCheck:
        """Proves that the plan can be carried out on a model with these regions.

        Args:
            regions: of the model.
            offload: whether slots wait on the host, so that `max_cache_bytes` bounds what lies on
                the device.

        Raises:
            PlanError: naming the offending stream, step and region.
        """
        return check(self, regions, offload=offload)

    def settled(self, regions: Sequence[RegionInfo]) -> tuple[Plan, tuple[str, ...]]:
        """The plan without what contradicts itself: of cells inside each other the outermost stay.

        Args:
            regions: of the model.

        Returns:
            The plan, and one sentence for each cell that was left out.

        Raises:
            PlanError: where a cell names a region that the model has not.
        """
        return settled(self, regions)

    def writes(self, stream: str, step: int, regions: Sequence[RegionInfo]) -> tuple[str, ...]:
        """Sorted names of the slots that this step must write for later steps to read."""
        return self.variant(stream, step, regions).writes

    def variant(self, stream: str, step: int, regions: Sequence[RegionInfo]) -> VariantKey:
        """The graph that this step needs.

        Raises:
            PlanError: where the plan fails its check, or the stream does not run at this step.
        """
        self.rows(stream)
        key = self.check(regions).keys[stream][step]
        if key is None:
            raise PlanError(f"plan {self.name!r}: stream {stream!r} does not run at step {step}.")
        return key

    def to_json(self) -> str:
        """The file's text."""
        return to_json(self)

    @staticmethod
    def from_json(text: str) -> Plan:
        """The plan a file's text describes.

        Raises:
            PlanError: where a field is unknown, missing or malformed.
        """
        return Plan(**fields_of(text))

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the plan; a reader of the path sees the old file or the new one, never half."""
        save(self, path)

    @staticmethod
    def load(path: str | PathLike[str]) -> Plan:
        """Reads a plan.

        Raises:
            PlanError: where the file is no plan of this schema version.
            OSError: where it cannot be read.
        """
        try:
            return Plan.from_json(Path(path).read_text("utf-8"))
        except (PlanError, UnicodeDecodeError) as error:
            raise PlanError(f"{fspath(path)}: {error}") from error


def _spelled(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(
        None if row is None else {name: act for name, act in sorted(row.items()) if act != COMPUTE}
        for row in rows
    )
