"""Exact runs recorded, and replayed with one step that deviates.

What a run computes before the deviating step it would compute again, so those calls give back what
was recorded: a probe at step s costs the steps from s on, and those that write what it reads. No
value of a region is kept, so a recording takes the memory of the network's inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.backend import build_engine, build_prologue
from turbo4d.compiler.errors import CalibrationError
from turbo4d.compiler.lower import get_lowering
from turbo4d.runtime.action import Action
from turbo4d.runtime.engine_shelf import EngineShelf
from turbo4d.runtime.fitted import channels_like
from turbo4d.runtime.levels import LevelUnit, log_sigma
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.region_info import relevance_slot
from turbo4d.runtime.variant_key import VariantKey

from .follow import Following, Value, mixed

SAMPLE = "sample"  # what is seen beside the slots: the part of the sample that is like the output
Call = tuple[str, int]  # stream and step
Values = Mapping[str, Sequence[Tensor]]  # per slot what it would hold
Run = Callable[[Callable[[str, int, Sequence[Tensor]], Sequence[Tensor]]], Tensor]


@dataclass
class Recording:
    """An exact run.

    Args:
        inputs: of each call, in their order, the denoiser's inputs.
        outputs: of each call.
        prologues: per stream.
        sample: what the sampler gave.
    """

    inputs: dict[Call, tuple[Tensor, ...]] = field(default_factory=dict[Call, tuple[Tensor, ...]])
    outputs: dict[Call, tuple[Tensor, ...]] = field(default_factory=dict[Call, tuple[Tensor, ...]])
    prologues: dict[str, Sequence[Tensor]] = field(default_factory=dict[str, Sequence[Tensor]])
    sample: Tensor | None = None


@dataclass(frozen=True)
class Deviation:
    """One step that does not compute everything.

    Args:
        stream: of the step.
        step: that deviates.
        actions: region -> action; what is not named computes.
        sources: per region that it reads, the steps whose values it is given, the oldest first; of
            relevance it is given the newest's.
        altered: what is done to a stored value before it is read, as its storage would.
    """

    stream: str
    step: int
    actions: Mapping[str, Action]
    sources: Mapping[str, tuple[int, ...]]
    altered: Callable[[Tensor], Tensor] | None = None


class Replayer:
    """Runs a denoiser's exact graph, recorded or deviating; the engines are torch's own.

    Args:
        analysis: of the denoiser.
        levels: the noise level of each step.
        level_unit: of the levels.
    """

    def __init__(self, analysis: Analysis, levels: Sequence[float], level_unit: LevelUnit) -> None:
        kinds = [row.kind for row in analysis.capture.table]
        self._first_input = len(kinds) - kinds.count("input")
        self._names = [row.target for row in analysis.capture.table][self._first_input :]
        self._regions = {region.name: region.info for region in analysis.regions}
        self._sample = analysis.roles.sample
        self._constant = analysis.roles.channels.get(self._sample, ())
        self._places = [log_sigma(level, level_unit) for level in levels]
        lowering = get_lowering("eager")
        self._shelf = EngineShelf(
            partial(build_engine, analysis, lowering), partial(build_prologue, analysis)
        )

    def record(
        self, run: Run, slots: Sequence[str], see: Callable[[Call, Values], None]
    ) -> Recording:
        """An exact run.

        Args:
            run: samples through the function that it is given.
            slots: names of regions, or of their relevance, to be seen.
            see: is shown what the slots would hold, at every call.
        """
        found = Recording()

        def call(stream: str, step: int, args: Sequence[Tensor]) -> Sequence[Tensor]:
            at = stream, step
            if at in found.outputs:
                raise CalibrationError(
                    f"calibration: step {step} of stream {stream!r} ran twice; call "
                    "denoiser.step(index, stream=...) before each call."
                )
            outputs, values = self._write(found, stream, args, slots)
            found.inputs[at] = _kept(args[self._first_input :], found.inputs, stream)
            found.outputs[at] = tuple(value.clone() for value in outputs)
            part = channels_like(args[self._sample], outputs[0], self._constant)
            see(at, values if part is None else {**values, SAMPLE: [part]})
            return outputs

        found.sample = run(call)
        return found

    def again(self, run: Run, recording: Recording) -> Tensor:
        """The recorded run without its network: every call gives what was recorded.

        Raises:
            CalibrationError: where the sampler hands over other inputs than it did, or gives
                another sample.
        """
        sample = run(_Replay(self, recording, None))
        if recording.sample is None or not _same(sample, recording.sample):
            raise CalibrationError(
                "the sampler is not deterministic: the same network outputs gave another sample; "
                "draw its noise from a generator that is seeded in every run."
            )
        return sample

    def probe(self, run: Run, recording: Recording, deviation: Deviation) -> Tensor:
        """The sample of a run that is exact but for one step.

        Args:
            run: samples through the function that it is given.
            recording: of the same run.
            deviation: the step.

        Raises:
            CalibrationError: where the sampler hands over other inputs than it did.
        """
        return run(_Replay(self, recording, deviation))

    def follow(self, run: Run, plan: Plan) -> Tensor:
        """The sample of a plan, on graphs that serve every plan.

        Args:
            run: samples through the function that it is given.
            plan: that passes its check.
        """
        return run(self.following(plan))

    def following(self, plan: Plan) -> Following:
        """A run of a plan, on graphs that serve every plan."""
        return Following(
            plan, self._shelf, self._regions, self._places, self._sample, self._constant
        )

    def exact(self, recording: Recording, stream: str, args: Sequence[Tensor]) -> Sequence[Tensor]:
        """One call that computes everything."""
        return self._write(recording, stream, args, ())[0]

    def values(self, recording: Recording, deviation: Deviation, args: Sequence[Tensor]) -> Values:
        """What a source of a deviation writes."""
        slots = [*deviation.sources, *self._followed(deviation)]
        return self._write(recording, deviation.stream, args, slots)[1]

    def deviate(
        self,
        recording: Recording,
        deviation: Deviation,
        written: Mapping[int, Values],
        args: Sequence[Tensor],
    ) -> Sequence[Tensor]:
        """The call that deviates, on what its sources wrote."""
        followed = self._followed(deviation)
        key = VariantKey(
            tuple(sorted(deviation.actions.items())), (), exact=True, relevance=followed
        )
        engine = self._shelf.get(key)
        sources = {**dict.fromkeys(followed, (max(written, default=0),)), **deviation.sources}
        held = {
            name: iter(self._read(written, deviation, name, sources[name])) for name in key.reads
        }
        slots = [next(held[name]) for name in engine.reads]
        return engine(args, self._prologue(recording, deviation.stream, args), slots)[0]

    def compare(self, recording: Recording, at: Call, args: Sequence[Tensor]) -> None:
        """Refuse a call whose inputs are not those that were recorded."""
        if at not in recording.inputs:
            raise CalibrationError(
                f"the sampler is not deterministic: step {at[1]} of stream {at[0]!r} was not run "
                "before; let it take the same steps in every run."
            )
        pairs = zip(self._names, recording.inputs[at], args[self._first_input :], strict=True)
        for name, before, now in pairs:
            if not _same(before, now):
                raise CalibrationError(
                    f"the sampler is not deterministic: input {name!r} differs at step {at[1]} of "
                    f"stream {at[0]!r} between two runs of one example; draw its noise from a "
                    "generator that is seeded in every run."
                )

    def _followed(self, deviation: Deviation) -> tuple[str, ...]:
        """The slots that say which tokens the deviation's pruned regions keep."""
        pruned = [name for name, action in deviation.actions.items() if action.kind == "prune"]
        named = {self._regions[name].relevance for name in pruned}
        return tuple(sorted(relevance_slot(name) for name in named if name is not None))

    def _read(
        self,
        written: Mapping[int, Values],
        deviation: Deviation,
        name: str,
        sources: Sequence[int],
    ) -> Sequence[Tensor]:
        history: list[Value] = [(step, written[step][name]) for step in sources]
        if (altered := deviation.altered) is not None and name in deviation.actions:
            history = [(step, [altered(each) for each in value]) for step, value in history]
        return mixed(history, self._places, deviation.step)

    def _write(
        self, recording: Recording, stream: str, args: Sequence[Tensor], slots: Sequence[str]
    ) -> tuple[Sequence[Tensor], Values]:
        engine = self._shelf.get(VariantKey((), tuple(sorted({*slots})), exact=True))
        outputs, written = engine(args, self._prologue(recording, stream, args), ())
        values: dict[str, list[Tensor]] = {}
        for name, tensor in zip(engine.writes, written, strict=True):
            values.setdefault(name, []).append(tensor)
        return outputs, values

    def _prologue(
        self, recording: Recording, stream: str, args: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        if stream not in recording.prologues:
            prologue = self._shelf.prologue()
            recording.prologues[stream] = () if prologue is None else prologue(args)
        return recording.prologues[stream]


class _Replay:
    """What a run calls: recorded outputs, then the deviating step, then exact ones."""

    def __init__(
        self, replayer: Replayer, recording: Recording, deviation: Deviation | None
    ) -> None:
        self._replayer = replayer
        self._recording = recording
        self._deviation = deviation
        self._sources: set[Call] = set()
        if deviation is not None:
            steps = {step for of in deviation.sources.values() for step in of}
            self._sources = {(deviation.stream, step) for step in steps}
        self._written: dict[int, Values] = {}
        self._deviated = False

    def __call__(self, stream: str, step: int, args: Sequence[Tensor]) -> Sequence[Tensor]:
        replayer, recording, deviation = self._replayer, self._recording, self._deviation
        at = stream, step
        if self._deviated:
            return replayer.exact(recording, stream, args)
        replayer.compare(recording, at, args)
        if deviation is not None and at == (deviation.stream, deviation.step):
            self._deviated = True
            return replayer.deviate(recording, deviation, self._written, args)
        if deviation is not None and at in self._sources:
            self._written[step] = replayer.values(recording, deviation, args)
        return tuple(value.clone() for value in recording.outputs[at])


def _kept(
    values: Sequence[Tensor], before: Mapping[Call, tuple[Tensor, ...]], stream: str
) -> tuple[Tensor, ...]:
    """Copies of a call's inputs; what is as it was at the stream's last call is kept once."""
    last = next((before[at] for at in reversed([*before]) if at[0] == stream), None)
    if last is None:
        return tuple(value.clone() for value in values)
    pairs = zip(last, values, strict=True)
    return tuple(old if _same(old, new) else new.clone() for old, new in pairs)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
