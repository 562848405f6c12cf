"""The door of torch.compile: capture, analyse, and hand the runner a maker of engines.

An error of ours passes through Dynamo as itself, in one sentence: `except turbo4d` types work
around the first call of a compiled module, where torch calls the backend.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from turbo4d.runtime.adaptive import bounds_of
from turbo4d.runtime.engine import Engine
from turbo4d.runtime.errors import OptionError, Turbo4DError
from turbo4d.runtime.holding import Holding
from turbo4d.runtime.host_memory import keep_freed_memory
from turbo4d.runtime.log import say
from turbo4d.runtime.passed_on import PassedOn
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.signature import Signature
from turbo4d.runtime.variant_key import VariantKey

from .analysis import Analysis, analyse
from .autocast import autocast_on, without_autocast
from .capture import capture_compiled, refuse_training, weight_positions
from .dynamo_compat import compiling_module, through_dynamo
from .errors import CaptureError, GeometryError, LowerError, NoSitesError
from .exact import exact_form
from .invariant import declare
from .lower import Lowering, get_lowering
from .lower.auto import AutoLowering
from .lower.eager import EagerPrologue, picker
from .options import Options
from .pieces import Piece, analyse_piece, current_piece
from .shared_engines import SharedEngines
from .specialise import Variant, specialise, specialise_capture

if TYPE_CHECKING:
    from torch import Tensor, fx

    from .ir import Capture


def turbo4d(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
    **more: Any,
) -> CompiledDenoiser | PassedOn:
    """The backend: `torch.compile(unet, backend="turbo4d", options={"plan": "balanced"})`.

    Args:
        gm: Dynamo's graph of one forward of the denoiser.
        example_inputs: its flat arguments.
        options: see `Options`.
        mode: refused; it belongs to another backend.
        more: options again, for a direct call or `functools.partial`.

    Returns:
        What torch calls instead of the graph. It computes no gradients.

    Raises:
        OptionError: an unknown option, one of the wrong kind, or one that fits no input.
        CaptureError: a forward that is no pure graph.
        NoSitesError: a graph without attention, unless the plan is "none".
        GeometryError: views or frames that the graph leaves open or contradicts.
        LowerError: an unknown lowering.
    """
    try:
        if mode is not None:
            raise OptionError(f"mode is {mode!r}; the turbo4d backend has options, no modes.")
        read = Options.read({**(options or {}), **more})
        if (piece := current_piece()) is not None:
            return compile_piece(gm, example_inputs, read, piece)
        return compile_denoiser(gm, example_inputs, read)
    except Turbo4DError as error:
        raise through_dynamo(error, inspect.currentframe()) from error


def compile_denoiser(
    gm: fx.GraphModule, example_inputs: Sequence[Any], options: Options
) -> CompiledDenoiser:
    """As `turbo4d`, for a whole forward, with options that are already checked."""
    lowering = get_lowering(options.lowering)
    capture = capture_compiled(gm, example_inputs)
    try:
        with without_autocast():
            analysis = analyse(capture, options.geometry, gates=not options.conditional)
    except (CaptureError, GeometryError) as error:
        if options.plan == "none" and options.geometry is None and options.invariant is None:
            # Nothing is to be done to this graph, so nothing need be known of it.
            with without_autocast():
                engine = _as_it_is(capture, lowering)
            reason = f"the forward runs as it is: {error}"
            as_it_is = PassedOn(engine, range(_weight_count(capture)), reason)
            return CompiledDenoiser(capture, as_it_is, None)
        if isinstance(error, NoSitesError):
            error.add_note("Compile the denoiser alone, with fullgraph=True, or set plan='none'.")
        raise
    analysis = replace(analysis, roles=declare(analysis.roles, capture, options.invariant))
    return CompiledDenoiser(capture, _runner(analysis, options, lowering), analysis)


def compile_piece(
    gm: fx.GraphModule, example_inputs: Sequence[Any], options: Options, piece: Piece
) -> CompiledDenoiser | PassedOn:
    """One graph of a forward that Dynamo broke: with the plan, or as it is where it has no part.

    Raises:
        CaptureError: in strict mode, where the piece has no part in the plan.
        GeometryError: a geometry that the first piece contradicts.
    """
    lowering = get_lowering(options.lowering)
    refuse_training(compiling_module())
    try:
        capture = capture_compiled(gm, example_inputs)
        gates = not options.conditional
        with without_autocast():
            analysis = analyse_piece(capture, piece, options.geometry, options.regions, gates=gates)
    except (CaptureError, GeometryError) as error:
        if piece.first and options.geometry and isinstance(error, GeometryError):
            raise
        said = f"piece {piece.name!r} of the forward"
        if options.strict:
            raise CaptureError(f"{said} has no part in the plan: {error}") from error
        reason = f"{said} runs as it is: {error}"
        say(1, reason)
        return PassedOn(gm.forward, weight_positions(gm), reason)
    known = {row.target for row in capture.inputs} if piece.first else set[str]()
    invariant = {name: of for name, of in (options.invariant or {}).items() if name in known}
    analysis = replace(analysis, roles=declare(analysis.roles, capture, invariant))
    kinds = {region.kind for region in analysis.regions}
    use = options.regions and [kind for kind in options.regions if kind in kinds]
    made = replace(options, regions=use)
    runner = _runner(analysis, made, lowering, piece.name)
    return CompiledDenoiser(capture, runner, analysis)


def _runner(analysis: Analysis, options: Options, lowering: Lowering, piece: str = "") -> Runner:
    if options.keep_memory:
        keep_freed_memory()
    merge = options.merge_projections
    engines: Callable[[VariantKey], Engine]
    if options.conditional:
        one = partial(lower, lowering=lowering)
        engines = SharedEngines(analysis, one, merge_projections=merge)
    else:
        engines = partial(build_engine, analysis, lowering, merge_projections=merge)
    return Runner(
        replace(signature_of(analysis), piece=piece),
        engines,
        plan=options.plan,
        levels=options.levels,
        level_unit=options.level_unit,
        use=None if options.regions is None else tuple(options.regions),
        strict=options.strict,
        nonfinite=options.nonfinite,
        max_cache_bytes=options.max_cache_bytes,
        prologue=partial(build_prologue, analysis, merge_projections=merge),
        adaptive=bounds_of(options.adaptive),
        holding=Holding(options.fixed_slots, options.offload, options.cuda_graphs),
        made_with=options,
        notes=lambda: lowering.notes if isinstance(lowering, AutoLowering) else (),
    )


def signature_of(analysis: Analysis) -> Signature:
    """What the runtime needs to know of a model."""
    capture, roles = analysis.capture, analysis.roles
    return Signature(
        names=tuple(row.target for row in capture.table),
        kinds=tuple(row.kind for row in capture.table),
        sample=roles.sample,
        level=roles.level,
        conditioning=roles.conditioning,
        regions=tuple(region.info for region in analysis.regions),
        model=capture.fingerprint,
        geometry=analysis.geometry,
        weights_bytes=capture.weights_bytes,
        invariant=roles.channels,
    )


def build_engine(
    analysis: Analysis, lowering: Lowering, key: VariantKey, *, merge_projections: bool = False
) -> Engine:
    """The engine of one variant.

    Raises:
        PlanError: the variant names what the model has not.
        LowerError: the lowering cannot take the variant.
    """
    return lower(specialise(analysis, key, merge_projections=merge_projections), lowering)


def build_prologue(analysis: Analysis, *, merge_projections: bool = False) -> EagerPrologue:
    """The prologue of a model's exact variants, run by torch whatever the lowering of the steps."""
    return EagerPrologue(exact_form(analysis, merge_projections=merge_projections).prologue)


def lower(variant: Variant, lowering: Lowering) -> Engine:
    """A variant's engine.

    Raises:
        LowerError: the lowering cannot take the variant.
    """
    if reasons := lowering.supports(variant):
        raise LowerError(
            f"lowering {lowering.name!r} cannot take variant {variant.key.name!r}: "
            f"{'; '.join(reasons)}."
        )
    return lowering.compile(variant)


def _weight_count(capture: Capture) -> int:
    return sum(row.kind == "weight" for row in capture.table)


def _as_it_is(capture: Capture, lowering: Lowering) -> Callable[..., Sequence[Tensor]]:
    variant = specialise_capture(capture, (), None, VariantKey((), (), exact=False))
    engine = lower(variant, lowering)
    return lambda *args: engine(args, (), ())[0]


class CompiledDenoiser:
    """Takes torch's flat arguments in torch's order, and gives the model's flat outputs.

    Args:
        capture: with the order, and the constants that torch does not pass.
        call: takes the flat arguments in canonical order; a `Runner` where regions are known.
        analysis: of the capture; None where plan "none" runs what is no denoiser.

    Attributes:
        call: as given.
        analysis: as given.
    """

    def __init__(
        self, capture: Capture, call: Callable[..., Sequence[Tensor]], analysis: Analysis | None
    ) -> None:
        self.call = call
        self.analysis = analysis
        order = capture.order or ()
        held = [row.target for row, at in zip(capture.table, order, strict=True) if at < 0]
        self._held = tuple(capture.constants[target] for target in held)
        # What torch does not pass stands before what it passes, so that one itemgetter finds both.
        before = iter(range(len(held)))
        indices = [next(before) if at < 0 else len(held) + at for at in order]
        self._permute: Callable[[Sequence[Any]], Sequence[Tensor]] = picker(indices)
        self._numbers = capture.numbers
        # Dynamo calls what it compiled under autocast under the same autocast alone.
        self._has_casts = autocast_on()

    def __call__(self, *args: Tensor) -> Sequence[Tensor]:
        """One call of the denoiser."""
        given = self._permute((*self._held, *self._as_tensors(args)))
        if not self._has_casts:
            return self.call(*given)
        with without_autocast():
            return self.call(*given)

    def _as_tensors(self, args: Sequence[Any]) -> Sequence[Tensor]:
        if not self._numbers:
            return args
        made = [*args]
        for at in self._numbers:
            made[at] = torch.tensor(made[at])
        return made
