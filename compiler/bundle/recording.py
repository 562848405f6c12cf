"""recording: one run of the plain graphs under the plan, kept as a bundle's reference."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.backend import signature_of
from turbo4d.compiler.bundle.comparison import norm_of
from turbo4d.compiler.bundle.reference import INSIDE, Recorded, Reference, Step
from turbo4d.compiler.calibrate.denoiser import Denoiser
from turbo4d.compiler.compat import unflattened
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.flat_args import flat_args
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue, picker
from turbo4d.compiler.prologue import Prologue
from turbo4d.compiler.specialise import Variant
from turbo4d.passes.base import returned
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.session import session
from turbo4d.runtime.variant_key import VariantKey

Run = Callable[[Callable[..., Any]], object]
"""Samples once: takes what stands for the module, calls it once for each step, in order."""


def record(
    module: nn.Module,
    analysis: Analysis,
    plan: Plan,
    variants: Mapping[VariantKey, Variant],
    prologue: Prologue | None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    run: Run | None = None,
) -> Reference:
    """Run the plan once on plain torch, and keep what each variant took and gave.

    Args:
        module: that was captured; `run` sees its attributes on what it calls.
        analysis: of it, through the export door.
        plan: proven; a stream that `run` does not name is its first.
        variants: all that the bundle holds; none may be conditional.
        prologue: of its exact variants, None where nothing is hoisted.
        args: positional arguments of one call.
        kwargs: keyword arguments of one call.
        run: a real run; None calls the module with `args` and `kwargs` at each step.

    Raises:
        LowerError: `run` did not call the module at every step.
    """
    names = [row.target for row in analysis.capture.table]
    first = len(names) - len(analysis.capture.inputs)
    notes = _Notes(names, first)
    kept = None if prologue is None else _KeptPrologue(prologue, notes)
    runner = Runner(
        signature_of(analysis),
        lambda key: _KeptEngine(variants[key], notes),
        plan=plan,
        prologue=None if kept is None else lambda: kept,
    )
    steps: list[Step] = []
    capture = analysis.capture
    with torch.no_grad(), session(runner, plan=plan) as opened:

        def before(stream: str, step: int) -> None:
            notes.stream = stream if stream in plan.streams else next(iter(plan.streams))
            notes.step = step
            opened.step(step, stream=notes.stream)

        def call(*given: Any, **named: Any) -> Any:
            flat = flat_args(capture, given, named)
            outputs = tuple(runner(*flat))
            steps.append(Step(notes.stream, notes.step, notes.inputs(flat), _copies(outputs)))
            return unflattened(capture.out_spec, outputs, capture.out_literals)

        denoiser = Denoiser(call, module, before)
        result = run(denoiser) if run is not None else _same(denoiser, plan, args, kwargs or {})
    _refuse_short(steps, plan)
    _the_rest(variants, kept, notes, flat_args(capture, args, kwargs))
    kept_result = result.cpu() if isinstance(result, Tensor) else None
    return Reference(notes.calls, tuple(steps), kept_result)


def _same(denoiser: Denoiser, plan: Plan, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Makes the same call at every step of every stream."""
    for stream, step in _planned(plan):
        denoiser.step(step, stream)
        denoiser(*args, **kwargs)


def _planned(plan: Plan) -> list[tuple[str, int]]:
    """Every step of every stream, in the order of the steps."""
    return [
        (stream, step)
        for step in range(plan.steps)
        for stream in plan.streams
        if plan.rows(stream)[step] is not None
    ]


def _refuse_short(steps: Sequence[Step], plan: Plan) -> None:
    ran = {(each.stream, each.step) for each in steps}
    if missing := [each for each in _planned(plan) if each not in ran]:
        stream, step = missing[0]
        raise LowerError(
            f"build: the run did not call the module at step {step} of stream {stream!r}; it must "
            f"call it once at each of the plan's {plan.steps} steps."
        )


class _Notes:
    """What was seen so far, and at which step."""

    def __init__(self, names: Sequence[str], first: int) -> None:
        self.stream = ""
        self.step = 0
        self.calls: dict[str, Recorded] = {}
        self._names = names
        self._first = first

    def inputs(self, flat: Sequence[Tensor]) -> dict[str, Tensor]:
        """The call's inputs by name, copied."""
        return dict(zip(self._names[self._first :], _copies(flat[self._first :]), strict=True))


class _KeptEngine:
    """A variant run by torch, whose first call is kept."""

    def __init__(self, variant: Variant, notes: _Notes) -> None:
        self._engine = EagerEngine(variant)
        self._variant = variant
        self._notes = notes
        self.key, self.reads, self.writes = variant.key, variant.reads, variant.writes

    def __call__(
        self, args: Sequence[Tensor], prologue: Sequence[Tensor], slots_in: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        given = _copies(slots_in)
        outputs, slots_out = self._engine(args, prologue, slots_in)
        notes, variant = self._notes, self._variant
        if self.key.name not in notes.calls:
            taken = (
                *picker(variant.arg_indices)(args),
                *picker(variant.prologue_indices)(prologue),
                *given,
            )
            notes.calls[self.key.name] = Recorded(
                self.key.name,
                notes.step,
                notes.inputs(args),
                _copies(prologue),
                tuple(zip(self.reads, given, strict=True)),
                _copies(outputs),
                tuple(zip(self.writes, _copies(slots_out), strict=True)),
                *inside(variant.module, taken, variant.outputs),
            )
        return outputs, slots_out


class _KeptPrologue:
    """The prologue run by torch, whose first call is kept."""

    def __init__(self, prologue: Prologue, notes: _Notes) -> None:
        self._engine = EagerPrologue(prologue)
        self._prologue = prologue
        self._notes = notes

    def __call__(self, args: Sequence[Tensor]) -> Sequence[Tensor]:
        values = self._engine(args)
        notes = self._notes
        if "prologue" not in notes.calls:
            taken = picker(self._prologue.arg_indices)(args)
            within, _ = inside(self._prologue.module, taken, len(values))
            notes.calls["prologue"] = Recorded(
                "prologue", notes.step, notes.inputs(args), (), (), _copies(values), (), within
            )
        return values


def _the_rest(
    variants: Mapping[VariantKey, Variant],
    prologue: _KeptPrologue | None,
    notes: _Notes,
    flat: Sequence[Tensor],
) -> None:
    """Calls what the run had no need of: the variants that the runtime falls back to."""
    for key, variant in variants.items():
        if key.name in notes.calls:
            continue
        if variant.reads:
            slots = [torch.zeros(v.shape, dtype=v.dtype) for v in variant.slot_values]
        else:
            slots = []
        values = prologue(flat) if prologue is not None and key.exact else ()
        _KeptEngine(variant, notes)(flat, values, slots)


def inside(
    module: fx.GraphModule, taken: Sequence[Tensor], outputs: int
) -> tuple[dict[str, Tensor], dict[int, float]]:
    """Some elements of every real value that a graph computes, and how large differences were.

    Args:
        module: whose graph is run once more.
        taken: one tensor for each placeholder.
        outputs: how many of what it returns are the model's; slots follow.

    Returns:
        Elements by the value's name; and for each slot that is a difference, by its position among
        the slots, the larger 2-norm of the two that it was taken from.
    """
    found: dict[str, Tensor] = {}
    sizes: dict[int, float] = {}
    slots = {node: at for at, node in enumerate(returned(module.graph)[outputs:])}

    class Watching(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.op == "call_function" and n.target is not operator.getitem:
                if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
                    found[n.name] = some_of(value)
            if n in slots and n.target is torch.ops.aten.sub.Tensor:
                both: list[Tensor] = [self.env[each] for each in n.all_input_nodes]
                sizes[slots[n]] = max(norm_of(each) for each in both)
            return value

    with torch.no_grad():
        Watching(module).run(*taken)
    return found, sizes


def some_of(value: Tensor) -> Tensor:
    """`INSIDE` elements of a tensor in float32, evenly spaced over it, first and last included."""
    places = torch.linspace(0, value.numel() - 1, INSIDE, dtype=torch.float64).long()
    return value.detach().cpu().reshape(-1)[places].float()


def _copies(values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(value.detach().cpu().clone() for value in values)
