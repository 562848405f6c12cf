"""A network under a user's sampler: learned once, then sampled under any plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.backend import CompiledDenoiser, build_engine
from turbo4d.compiler.backend import turbo4d as backend
from turbo4d.compiler.errors import CalibrationError
from turbo4d.compiler.lower import get_lowering
from turbo4d.runtime.engine import Engine
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.fed_level import read_level
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.levels import LevelUnit, check_levels, infer_unit
from turbo4d.runtime.plan import Plan, Row
from turbo4d.runtime.region_info import RegionInfo
from turbo4d.runtime.report import Report
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.session import Session, session
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.runtime.weights_digest import weights_digest

from .denoiser import Denoiser
from .fidelity import psnr_of_range
from .follow import Following
from .replay import Call, Deviation, Recording, Replayer, Values

Sampler = Callable[[Callable[..., Any], Any], Tensor]
Route = Callable[[str, int, Sequence[Tensor]], Sequence[Tensor]]


class Harness:
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
        self.report: Report | None = None
        self._network = network
        self._sampler = sampler
        self._fidelity = fidelity or psnr_of_range
        self._options: dict[str, Any] = {"plan": "exact", "lowering": "eager", **(options or {})}
        self._compiled: list[CompiledDenoiser] = []
        self._runner: Runner | None = None
        self._fast: Callable[..., Any] = cast("Any", torch).compile(
            network, backend=self._backend, fullgraph=True, dynamic=False
        )
        self._route: Route | None = None
        self._now: tuple[str, int] = ("main", 0)
        self._references: list[tuple[object, Tensor]] = []
        self._levels: tuple[float, ...] | None = None
        self._unit: LevelUnit = "sigma"
        self._streams: dict[str, tuple[int, ...]] = {}
        self._replays: Replayer | None = None

    def learn(self, example: object) -> None:
        """One uncached run, which shows the levels and the steps of each stream.

        Raises:
            CalibrationError: where a level cannot be read, or the levels are no schedule.
            CaptureError: a forward that is no pure graph.
            GeometryError: views or frames that the graph leaves open or contradicts.
        """
        levels: dict[int, float] = {}
        streams: dict[str, list[int]] = {}

        def see(stream: str, step: int, args: Sequence[Tensor]) -> Sequence[Tensor]:
            level = read_level(self._known().signature, args)
            if isinstance(level, tuple):
                raise CalibrationError(f"calibration: {level[1]}; a plan follows the noise level.")
            _note(levels, streams, stream, step, level)
            return self._plain(args)

        sample = self._run(example, self._fast, route=see)
        self._streams = {name: tuple(sorted(steps)) for name, steps in streams.items()}
        self._levels = tuple(levels[step] for step in sorted(levels))
        self._unit = self._options.get("level_unit") or infer_unit(self._levels)
        if sorted(levels) != [*range(len(levels))]:
            missing = next(step for step in range(len(levels)) if step not in levels)
            raise CalibrationError(
                f"calibration: no stream ran step {missing}; number the steps from 0 without gaps."
            )
        try:
            check_levels(self._levels, self._unit)
        except PlanError as error:
            raise CalibrationError(
                f"calibration: {error} Where a step calls the network more than once, call "
                "denoiser.step(index, stream=...) before each call, with a stream for each branch."
            ) from error
        self._replays = Replayer(self.analysis, self._levels, self._unit)
        # Plan none under the eager lowering is the plain network to the bit.
        self._references.append((example, sample))

    @property
    def analysis(self) -> Analysis:
        """Of the network."""
        if not self._compiled or self._compiled[0].analysis is None:
            raise CalibrationError("calibration: the network is not known yet; call learn first.")
        return self._compiled[0].analysis

    @property
    def regions(self) -> tuple[RegionInfo, ...]:
        """Of the network."""
        return self._known().signature.regions

    @property
    def model(self) -> str:
        """Fingerprint of the captured graph."""
        return self._known().signature.model

    @property
    def geometry(self) -> Geometry:
        """What the network was captured for."""
        return self._known().signature.geometry

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

    @cached_property
    def weights_sha256(self) -> str:
        """Digest of the weights that the network computes with."""
        # Buffers that no checkpoint keeps are computed with as well.
        held = {**self._network.state_dict(), **dict(self._network.named_buffers())}
        used = [row.target for row in self.analysis.capture.table if row.kind == "weight"]
        return weights_digest((name, held[name]) for name in used)

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

    def through(self, example: object, route: Route) -> Tensor:
        """What the sampler gives where every call of the denoiser goes to `route`.

        Args:
            example: to sample.
            route: called with stream, step and all flat arguments; gives the flat outputs.
        """
        return self._run(example, self._fast, route=route)

    def following(self, plan: Plan) -> Following:
        """A route that carries out a plan's steps; see `follow`."""
        return self._replayer.following(plan)

    def sample_of(self, args: Sequence[Tensor]) -> Tensor:
        """The sample among all flat arguments."""
        return args[self._known().signature.sample]

    def sample_in(self, inputs: Sequence[Tensor]) -> Tensor:
        """The sample among a recording's inputs."""
        signature = self._known().signature
        return inputs[signature.sample - signature.kinds.index("input")]

    @property
    def constant_channels(self) -> Sequence[tuple[int, int]]:
        """Channels [start, stop) of the sample that are declared not to change."""
        signature = self._known().signature
        return signature.invariant.get(signature.sample, ())

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

    def _backend(self, gm: torch.fx.GraphModule, inputs: Sequence[Any]) -> CompiledDenoiser:
        built = backend(gm, inputs, options=self._options)
        if not isinstance(built, CompiledDenoiser) or not isinstance(built.call, Runner):
            raise CalibrationError("calibration: the network has no regions that a plan can name.")
        runner = built.call
        self._runner = self._runner or runner
        self._compiled.append(built)
        built.call = partial(self._called, runner)
        return built

    def _called(self, runner: Runner, *args: Tensor) -> Sequence[Tensor]:
        known = self._known()
        if runner.signature != known.signature:
            raise CalibrationError(
                f"calibration: an example is of geometry {runner.signature.geometry}; the first "
                f"was of {known.signature.geometry}. Calibrate each geometry by itself."
            )
        if self._route is not None:
            return self._route(*self._now, args)
        return known(*args)

    def _known(self) -> Runner:
        if self._runner is None:
            raise CalibrationError("calibration: the network is not known yet; call learn first.")
        return self._runner

    def _plain(self, args: Sequence[Tensor]) -> Sequence[Tensor]:
        return self._uncached(args, (), ())[0]

    @cached_property
    def _uncached(self) -> Engine:
        return build_engine(self.analysis, get_lowering("eager"), VariantKey((), (), exact=False))

    @property
    def _replayer(self) -> Replayer:
        if self._replays is None:
            raise CalibrationError("calibration: the levels are not known yet; call learn first.")
        return self._replays


def _ignore(stream: str, step: int) -> None:
    """Plain runs need no steps."""


def _note(
    levels: dict[int, float], streams: dict[str, list[int]], stream: str, step: int, level: float
) -> None:
    if not math.isfinite(level):
        raise CalibrationError(
            f"calibration: step {step} is fed the level {level}; wanted a number."
        )
    if levels.setdefault(step, level) != level:
        raise CalibrationError(
            f"calibration: step {step} has level {levels[step]:g} in one stream and {level:g} in "
            f"{stream!r}; give steps of one level one number."
        )
    if step in streams.setdefault(stream, []):
        raise CalibrationError(
            f"calibration: step {step} of stream {stream!r} ran twice; call denoiser.step(index, "
            "stream=...) before each call, with a stream for each guidance branch."
        )
    streams[stream].append(step)
