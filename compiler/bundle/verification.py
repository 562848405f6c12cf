"""verification: each engine of a bundle against what plain torch gave when it was built.

An engine is called once on the recorded inputs of its variant, and everything that it gives is
compared: the model's outputs and every slot it writes. Then the recorded run is called again, step
by step, the slots going from engine to engine as they will. What is allowed is in `tolerances`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from turbo4d.compiler.bundle.comparison import difference, differences, norm_of
from turbo4d.compiler.bundle.example import given_of, wanted_of
from turbo4d.compiler.bundle.layers import first_wrong
from turbo4d.compiler.bundle.recording import some_of
from turbo4d.compiler.bundle.reference import STEM, Recorded, Reference, Step, read_reference
from turbo4d.compiler.bundle.tolerances import relative_error
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.bundle.bundle_files import Bundle
from turbo4d.runtime.bundle.denoiser import BundleDenoiser
from turbo4d.runtime.bundle.dtypes import dtype_named
from turbo4d.runtime.bundle.load import checked_manifest, load, reasons_as_built
from turbo4d.runtime.bundle.manifest import Manifest, TensorRow
from turbo4d.runtime.bundle.weights import BundleWeights
from turbo4d.runtime.errors import BundleError, Turbo4DError
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.session import session

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


def verify(
    path: Path,
    *,
    allow_native: bool = False,
    device: str = "auto",
    strict: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Verification:
    """Check a bundle.

    Args:
        path: of it.
        allow_native: whether it may run code of its own.
        device: see `runtime.bundle.load`.
        strict: whether nothing stands in for engines that cannot run here.
        say: told what is being done.

    Raises:
        BundleError: a file is not what the manifest says.
    """
    say("checking the files")
    manifest = checked_manifest(path)
    rows, denoiser, by = list[Checked](), None, AS_BUILT
    try:
        denoiser = load(path, allow_native=allow_native, device=device, strict=True)
    except BundleError:
        reasons = reasons_as_built(path, allow_native=allow_native, device=device)
        if not any(reasons.values()):
            raise
        rows += _not_run(manifest, _each(reasons))
        by = STAND_IN
        if not strict:
            denoiser = load(path, allow_native=allow_native, device=device)
    if denoiser is None:
        return Verification(manifest, tuple(rows), "", None, None)
    manifest = denoiser.manifest
    reference = _reference(path, manifest)
    if reference is None:
        reason = "the bundle holds no reference; build it without --no-reference"
        rows += _not_run(
            manifest, dict.fromkeys((row.name for row in manifest.engines), reason), by
        )
        return Verification(manifest, tuple(rows), "", None, denoiser)
    found = _Checks(path, denoiser, reference, by, allow_native)
    for name in found.names:
        say(f"running {name}")
        rows.append(found.engine(name))
    say("running the whole plan")
    rows.append(found.run())
    return Verification(manifest, tuple(rows), found.measured_by, reference, denoiser)


class _Checks:
    """Holds a denoiser of a bundle against a reference."""

    def __init__(
        self,
        path: Path,
        denoiser: BundleDenoiser,
        reference: Reference,
        by: str,
        allow_native: bool,
    ) -> None:
        manifest = denoiser.manifest
        self.measured_by = ""
        self._bundle = Bundle(path, manifest, "cpu", allow_native)
        self._denoiser = denoiser
        self._reference = reference
        self._by = by
        self._variants = {row.key.name: row for row in manifest.variants}
        self._engines = {row.name: row for row in manifest.engines}
        self._dtype = dtype_named(manifest.dtype)
        self.names = [name for name in _names(manifest) if name in reference.calls]

    def engine(self, name: str) -> Checked:
        """One engine on its recorded call."""
        call, tolerance = self._reference.calls[name], relative_error(self._dtype)
        try:
            got = self._called(name, call)
        except Turbo4DError as error:
            return Checked(name, self._by, "not run", str(error), tolerance=tolerance)
        wanted = {**_numbered(call.outputs), **_of_slots(call.slots_out)}
        found, self.measured_by = differences(got, wanted, _sizes(call))
        errors = {each: value.relative for each, value in found.items()}
        if all(error <= tolerance for error in errors.values()):
            return Checked(name, self._by, "passed", "", errors, tolerance)
        return Checked(name, self._by, "failed", "", errors, tolerance, self._layer(name, call))

    def run(self) -> Checked:
        """The recorded run, its inputs as they were, its slots the engines' own."""
        reference, plan = self._reference, self._denoiser.plan
        names = self._denoiser.manifest.signature.names
        tolerance = run_tolerance(self._dtype, plan)
        errors: dict[str, float] = {}
        runner = self._denoiser.runner
        try:
            with torch.no_grad(), session(runner, plan=plan) as run:
                for step in reference.steps:
                    run.step(step.step, stream=step.stream)
                    outputs = runner(*(self._here(step.inputs[name]) for name in names))
                    errors[_said(step, len(plan.streams) > 1)] = max(
                        difference(got, want).relative
                        for got, want in zip(outputs, step.outputs, strict=True)
                    )
        except Turbo4DError as error:
            return Checked(WHOLE_RUN, self._by, "not run", str(error), tolerance=tolerance)
        passed = all(error <= tolerance for error in errors.values())
        return Checked(WHOLE_RUN, self._by, "passed" if passed else "failed", "", errors, tolerance)

    def _called(self, name: str, call: Recorded) -> dict[str, Tensor]:
        names = self._denoiser.manifest.signature.names
        args = [self._here(call.inputs[each]) for each in names]
        with torch.no_grad():
            if name == self._denoiser.manifest.prologue:
                return _numbered(self._denoiser.prologue()(args))
            engine = self._denoiser.engine(self._variants[name].key)
            prologue = [self._here(value) for value in call.prologue]
            slots = [self._here(value) for _, value in call.slots_in]
            outputs, written = engine(args, prologue, slots)
        return {**_numbered(outputs), **_of_slots(zip(engine.writes, written, strict=True))}

    def _here(self, value: Tensor) -> Tensor:
        return value.to(self._denoiser.device)

    def _layer(self, name: str, call: Recorded) -> str:
        """Where in an engine's graph the values go apart, as a sentence."""
        variant = self._variants.get(name)
        row = self._engines[name if variant is None else variant.engine]
        if not row.graph:
            return "the bundle keeps no graph of it to look into"
        skipped = () if variant is None else variant.key.actions
        taken = [each for each in row.takes if each.kind != "weight"]
        given = given_of(taken, call, frozenset(region for region, _ in skipped))
        wanted = zip(row.gives, wanted_of(row.gives, call), strict=True)
        outputs = {each.name: some_of(value) for each, value in wanted if value is not None}
        try:
            found = first_wrong(
                self._bundle.path(row.graph),
                _by_offset(self._bundle),
                {each.name: value for each, value in zip(taken, given, strict=True)},
                {**call.inside, **outputs},
                relative_error(self._dtype),
                _looser(row.gives, call),
            )
        except (LowerError, Turbo4DError) as error:
            return f"its graph could not be looked into: {error}"
        if found is None:
            return "every value inside its graph is right by itself: what is fused or built is not"
        return str(found)


def run_tolerance(dtype: torch.dtype, plan: Plan) -> float:
    """The relative error that a step of a run may have: its engine's own, and its slots'.

    What a slot holds is an engine's error off; extrapolation weighs what it holds, by at most
    2^(order + 1) - 1 in all where levels are evenly spaced, or by the plan's own weights.

    Args:
        dtype: that the engines compute in.
        plan: whose weights are taken.
    """
    rows = [row for stream in plan.streams for row in plan.rows(stream)]
    actions = [action for row in rows if row is not None for action in row.values()]
    gains = [sum(map(abs, a.mix)) if a.mix else 2.0 ** (a.order + 1) - 1 for a in actions]
    return relative_error(dtype) * (1.0 + max(gains, default=0.0))


def _reference(path: Path, manifest: Manifest) -> Reference | None:
    names = [name for name in manifest.files if Path(name).name.startswith(f"{STEM}.")]
    return read_reference(path / names[0]) if names else None


def _names(manifest: Manifest) -> list[str]:
    """What is looked at: the prologue, then the variants."""
    first = [] if manifest.prologue is None else [manifest.prologue]
    return [*first, *(row.key.name for row in manifest.variants)]


def _not_run(
    manifest: Manifest, reasons: Mapping[str, str], by: str = AS_BUILT
) -> Iterator[Checked]:
    """A row for each that is looked at, with the reason of its engine."""
    engines = {row.key.name: row.engine for row in manifest.variants}
    for name in _names(manifest):
        yield Checked(name, by, "not run", reasons[engines.get(name, name)])


def _each(reasons: Mapping[str, str]) -> dict[str, str]:
    """The reasons, and another engine's for one that has none: all run as built, or none does."""
    first = next(name for name, reason in reasons.items() if reason)
    said = f"it runs here as it was built, and engine {first!r} of the same bundle does not"
    return {name: reason or said for name, reason in reasons.items()}


def _said(step: Step, several: bool) -> str:
    return f"step {step.step} of {step.stream}" if several else f"step {step.step}"


def _numbered(values: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"output {at}": value for at, value in enumerate(values)}


def _of_slots(
    slots: Iterator[tuple[str, Tensor]] | Sequence[tuple[str, Tensor]],
) -> dict[str, Tensor]:
    """By slot; the values of a cut of several are numbered."""
    found: dict[str, Tensor] = {}
    for name, value in slots:
        again = sum(each.split(" #")[0] == f"slot {name}" for each in found)
        found[f"slot {name}" + (f" #{again + 1}" if again else "")] = value
    return found


def _sizes(call: Recorded) -> dict[str, float]:
    """By what a call gives, what its error is measured against where it is a difference."""
    names = [*_of_slots(call.slots_out)]
    return {names[at]: size for at, size in call.sizes.items()}


def _looser(gives: Sequence[TensorRow], call: Recorded) -> dict[str, float]:
    """By what a graph gives, how much further from itself a difference may be than its terms.

    A graph of all variants gives slots that this call's variant does not write.
    """
    left = {at: name for at, (name, _) in enumerate(call.slots_out)}
    found: dict[str, float] = {}
    for row in gives:
        at = next((at for at, name in left.items() if (row.kind, row.source) == ("slot", name)), -1)
        if left.pop(at, None) is not None and at in call.sizes:
            norm = norm_of(call.slots_out[at][1])
            found[row.name] = max(1.0, call.sizes[at] / norm) if norm else math.inf
    return found


def _by_offset(bundle: Bundle) -> dict[int, Tensor]:
    weights = BundleWeights(bundle)
    return {row.offset: weights[row.name] for row in bundle.manifest.weights}
