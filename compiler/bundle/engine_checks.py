"""One bundle's engines, and its whole run, held against a recorded reference.

An engine is called once on the recorded inputs of its variant, and everything that it gives is
compared: the model's outputs and every slot it writes. Then the recorded run is called again, step
by step, the slots going from engine to engine as they will. What is allowed is in `tolerances`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from turbo4d.compiler.bundle.comparison import difference, differences, norm_of
from turbo4d.compiler.bundle.example import given_of, wanted_of
from turbo4d.compiler.bundle.findings import WHOLE_RUN, Checked, looked_at
from turbo4d.compiler.bundle.layers import first_wrong
from turbo4d.compiler.bundle.recording import some_of
from turbo4d.compiler.bundle.reference import Recorded, Reference, Step
from turbo4d.compiler.bundle.tolerances import relative_error, run_tolerance
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.bundle.bundle_files import Bundle
from turbo4d.runtime.bundle.denoiser import BundleDenoiser
from turbo4d.runtime.bundle.dtypes import dtype_named
from turbo4d.runtime.bundle.manifest import TensorRow
from turbo4d.runtime.bundle.weights import BundleWeights
from turbo4d.runtime.errors import Turbo4DError
from turbo4d.runtime.session import session


class EngineChecks:
    """Holds a denoiser of a bundle against a reference.

    Args:
        path: of the bundle.
        denoiser: that it was loaded as.
        reference: what plain torch gave when it was built.
        by: whether its engines run as they were built, or others in their place.
        allow_native: whether it may run code of its own.
    """

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
        self.names = [name for name in looked_at(manifest) if name in reference.calls]

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
                looser(row.gives, call),
            )
        except (LowerError, Turbo4DError) as error:
            return f"its graph could not be looked into: {error}"
        if found is None:
            return "every value inside its graph is right by itself: what is fused or built is not"
        return str(found)


def _said(step: Step, several: bool) -> str:
    return f"step {step.step} of {step.stream}" if several else f"step {step.step}"


def _numbered(values: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"output {at}": value for at, value in enumerate(values)}


def _of_slots(slots: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
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


def looser(gives: Sequence[TensorRow], call: Recorded) -> dict[str, float]:
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
