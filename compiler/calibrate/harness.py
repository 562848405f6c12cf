"""A network under a user's sampler: learned once, then sampled under any plan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from turbo4d.compiler.errors import CalibrationError
from turbo4d.runtime.fed_level import read_level
from turbo4d.runtime.levels import LevelUnit
from turbo4d.runtime.plan import Plan, Row
from turbo4d.runtime.report import Report
from turbo4d.runtime.session import Session, session

from .answers import AnswerForm
from .denoiser import Denoiser
from .fidelity import psnr_of_range
from .follow import Following
from .known_network import KnownNetwork, Route
from .replay import Call, Deviation, Recording, Replayer, Values
from .visits import Visits

Sampler = Callable[[Callable[..., Any], Any], Tensor]


class Harness(KnownNetwork):
    """Samples a network plainly, under a plan in a session, recorded, or with one deviating step.

    Args:
        network: the denoiser, in eval mode.
        sampler: called as `sampler(denoiser, example)`, gives the sample. `denoiser` has the
            network's call signature and attributes; each call of it is the next step of the stream
            "main", unless `denoiser.step(index, stream=...)` said otherwise before the call.
        fidelity: gives dB of (reference, sample, example); None for PSNR, by a peak of 1 where the
            reference lies in [0, 1], else by its range.
        options: of the backend, such as `geometry`, `lowering` and `invariant`.

    Attributes:
        report: of the last sample under a plan, None before one.
    """

    def __init__(
        self,
        network: nn.Module,
        sampler: Sampler,
        *,
        fidelity: Callable[[Tensor, Tensor, Any], float] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(network, {"plan": "exact", "lowering": "eager", **(options or {})})
        self.report: Report | None = None
        self._sampler = sampler
        self._fidelity = fidelity or psnr_of_range
        self._references: list[tuple[object, Tensor]] = []
        self._levels: tuple[float, ...] | None = None
        self._unit: LevelUnit = "sigma"
        self._streams: Mapping[str, tuple[int, ...]] = {}
        self._replays: Replayer | None = None
        self._form: AnswerForm | None = None

    def learn(self, example: object) -> None:
        """One uncached run, which shows the levels and the steps of each stream.

        Raises:
            CalibrationError: where a level cannot be read, or the levels are no schedule.
            CaptureError: a forward that is no pure graph.
            GeometryError: views or frames that the graph leaves open or contradicts.
        """
        visits = Visits()

        def see(stream: str, step: int, args: Sequence[Tensor]) -> Sequence[Tensor]:
            level = read_level(self._known().signature, args)
            if isinstance(level, tuple):
                raise CalibrationError(f"calibration: {level[1]}; a plan follows the noise level.")
            visits.note(stream, step, level)
            return self._plain(args)

        sample = self._run(example, self._fast, route=see)
        self._streams = visits.streams
        self._levels, self._unit = visits.schedule(self._options.get("level_unit"))
        self._replays = Replayer(self.analysis, self._levels, self._unit)
        # Plan none under the eager lowering is the plain network to the bit.
        self._references.append((example, sample))

    @property
    def levels(self) -> tuple[float, ...]:
        """The noise level of each step, as the network is fed it."""
        if self._levels is None:
            raise CalibrationError("calibration: the levels are not known yet; call learn first.")
        return self._levels

    @property
    def level_unit(self) -> LevelUnit:
        """What the levels are."""
        return self._unit

    @property
    def streams(self) -> Mapping[str, tuple[int, ...]]:
        """Per stream the steps that it visits, rising."""
        return dict(self._streams)

    def reference(self, example: object) -> Tensor:
        """The sample of the plain, uncached network; computed once for each example."""
        for known, sample in self._references:
            if known is example:
                return sample
        with torch.no_grad():
            sample = self._sampler(Denoiser(self._network, self._network, _ignore), example)
        self._references.append((example, sample))
        return sample

    def forget(self, example: object) -> None:
        """Lets go of an example's reference."""
        self._references = [each for each in self._references if each[0] is not example]

    def sample(self, example: object, plan: Plan) -> Tensor:
        """The sample under a plan, in a session of its own.

        Raises:
            PlanError: where the plan is for another model or schedule, or fails its check.
            CalibrationError: where the example is of another geometry.
        """
        with session(self._fast, levels=self.levels, level_unit=self._unit, plan=plan) as run:
            sample = self._run(example, self._fast, run=run)
            self.report = run.report()
        return sample

    def psnr(self, example: object, plan: Plan) -> float:
        """The fidelity in dB of the sample under a plan to the reference."""
        return self.judge(example, self.sample(example, plan))

    def judge(self, example: object, sample: Tensor) -> float:
        """The fidelity in dB of a sample to the reference."""
        return self._fidelity(self.reference(example), sample, example)

    def plan(
        self,
        name: str,
        rows: Mapping[str, Sequence[Row]],
        *,
        max_age: int,
        max_variants: int,
        max_cache_bytes: int | None = None,
        error_budget_db: float | None = None,
        storage: Mapping[str, str] | None = None,
        origin: str | None = None,
    ) -> Plan:
        """A plan for this network, geometry and schedule; see `Plan`."""
        return Plan(
            name=name,
            model=self.model,
            geometry=self.geometry,
            levels=self.levels,
            level_unit=self._unit,
            streams={stream: tuple(of) for stream, of in rows.items()},
            max_age=max_age,
            max_variants=max_variants,
            max_cache_bytes=max_cache_bytes,
            error_budget_db=error_budget_db,
            storage=storage or {},
            origin=origin or "",
        )

    def record(
        self, example: object, slots: Collection[str], see: Callable[[Call, Values], None]
    ) -> Recording:
        """An exact run.

        Args:
            example: to sample.
            slots: names of regions, or of their relevance, to be seen.
            see: is shown what the slots would hold, at every call.
        """
        run = partial(self.through, example)
        return self._replayer.record(run, sorted(slots), see)

    def again(self, example: object, recording: Recording) -> Tensor:
        """The recorded run without its network.

        Raises:
            CalibrationError: where the sampler is not deterministic.
        """
        return self._replayer.again(partial(self.through, example), recording)

    def probe(self, example: object, recording: Recording, deviation: Deviation) -> Tensor:
        """The sample of a run that is exact but for one step.

        Raises:
            CalibrationError: where the sampler is not deterministic.
        """
        return self._replayer.probe(partial(self.through, example), recording, deviation)

    def follow(self, example: object, plan: Plan) -> Tensor:
        """The sample under a plan, to the bit that of `sample`, with a graph for each row alone.

        Raises:
            PlanError: where the plan fails its check.
        """
        plan.check(self.regions)
        return self._replayer.follow(partial(self.through, example), plan)

    def through(
        self,
        example: object,
        route: Route,
        decided: Mapping[Call, Tensor] | None = None,
    ) -> Tensor:
        """What the sampler gives where every call of the denoiser goes to `route`.

        Args:
            example: to sample.
            route: called with stream, step and all flat arguments; gives the flat outputs.
            decided: the output of calls that need not go there, of which a copy is given.
        """
        decided = decided or {}
        outputs: list[Tensor] = []

        def noted(stream: str, step: int, args: Sequence[Tensor]) -> Sequence[Tensor]:
            outputs[:] = route(stream, step, args)
            return outputs

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._now in decided and self._form is not None:
                return self._form.made([decided[self._now].clone()])
            answer = self._fast(*args, **kwargs)
            if self._form is None:
                self._form = AnswerForm.of(answer, outputs)
            return answer

        return self._run(example, call, route=noted)

    def following(self, plan: Plan) -> Following:
        """A route that carries out a plan's steps; see `follow`."""
        return self._replayer.following(plan)

    def _run(
        self,
        example: object,
        network: Callable[..., Any],
        *,
        route: Route | None = None,
        run: Session | None = None,
    ) -> Tensor:
        def before(stream: str, step: int) -> None:
            self._now = stream, step
            if run is not None:
                run.step(step, stream)

        self._route = route
        try:
            with torch.no_grad():
                return self._sampler(Denoiser(network, self._network, before), example)
        finally:
            self._route = None

    @property
    def _replayer(self) -> Replayer:
        if self._replays is None:
            raise CalibrationError("calibration: the levels are not known yet; call learn first.")
        return self._replays


def _ignore(stream: str, step: int) -> None:
    """Plain runs need no steps."""
