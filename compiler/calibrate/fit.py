"""fit: the weights of a plan's fitted steps, found one step after the other on the plan's own run.

A fitted step gives a weighted sum of what the last computed steps gave and of its own sample. Its
weights are those that bring the sampler's next input as near as they can, in the mean square over
all examples, to that of the exact run; so each step also takes back what the steps before it erred.
Of the sampler nothing is known but that its next input is affine in what the denoiser gives: how it
answers to each term is found by handing it that term. No call of the network is spent on a fit.

Source: the span is that of a linear multistep method; others fit such methods to a finer run too,
as bespoke solvers (Shaul et al. 2023) and DPM-Solver-v3 (Zheng et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from turbo4d.runtime.action import Action
from turbo4d.runtime.extrapolation import weighted
from turbo4d.runtime.fitted import STEP, add_sample, channels_like
from turbo4d.runtime.slot_storage import decode, encode

from .beginnings import Beginning, Beginnings, Given
from .follow import Following
from .harness import Harness
from .replay import Call, Recording
from .residual import solve

if TYPE_CHECKING:
    from turbo4d.runtime.plan import Plan, Row

_RIDGE = 1e-8  # of the normal equations of unit columns; only keeps twin columns from cancelling
_DIGITS = 9  # that a weight is kept to
# How far the last step's output is moved to see how the final sample answers: a sampler that
# decodes is affine near what it gave, not far from it. Any other answer is affine.
_LAST_STRIDE = 1 / 16


class _Stop(BaseException):
    """Ends a sampler's run where no more of it is wanted; not for samplers to catch."""


@dataclass
class _Run:
    """One example under the plan, as far as it is decided.

    Args:
        harness: that samples.
        example: to sample.
        exact: its exact run.
        following: carries out the steps that are computed.
        storage: how the step's slot is kept.
        reads: whether a step of the plan reads other slots than the step's.
    """

    harness: Harness
    example: object
    exact: Recording
    following: Following
    storage: str
    reads: bool
    given: dict[Call, Tensor] = field(default_factory=dict[Call, Tensor])
    history: dict[str, list[Tensor]] = field(default_factory=dict[str, list[Tensor]])
    _samples: dict[Call, Tensor] = field(default_factory=dict[Call, Tensor])
    _passed: list[Call] = field(default_factory=list[Call])

    def compute(self, at: Call) -> None:
        """Runs a step's engine on the plan's own run."""
        if self.reads:  # what steps that were known already would have written
            for earlier in self._passed:
                self._followed(earlier)
            self._passed.clear()
        self._keep(at, self._followed(at))

    def pass_over(self, at: Call, output: Tensor, *, computed: bool) -> None:
        """Takes what a step is known to give, for an equal plan came this far."""
        if computed:
            self._keep(at, output)
            self._passed.append(at)
        self.given[at] = output

    def _keep(self, at: Call, output: Tensor) -> None:
        self.given[at] = output
        self.history.setdefault(at[0], []).append(decode(encode(output, self.storage)))

    def _followed(self, at: Call) -> Tensor:
        found: list[Tensor] = []

        def give(args: Sequence[Tensor]) -> Tensor:
            found.extend(self.following(*at, args))
            raise _Stop

        self._walk(at, give)
        return found[0].clone()

    def take(self, at: Call, fit: Action) -> None:
        """Gives a fitted step what its weights make of the history and the sample."""
        mixed = weighted(self.history[at[0]][-len(fit.mix) :], fit.mix)
        constant = self.harness.constant_channels
        sample = self._samples[at]
        [self.given[at]] = add_sample((STEP,), [mixed], {STEP: fit}, sample, constant)

    def sample(self) -> Tensor:
        """What the sampler gives of the plan's own run, once every call is decided."""
        return self.harness.through(
            self.example,
            lambda stream, step, args: (self.given[stream, step].clone(),),
            self.given,
        )

    def equations(self, at: Call, depth: int) -> tuple[Tensor, Tensor, int]:
        """Normal equations of a step's weights, in float64, and how many values are mixed.

        Args:
            at: the step.
            depth: how many of the last values may be mixed.

        Returns:
            The matrix [values + 1, values + 1], the right side [values + 1], the count of values.
        """
        exact = self.exact.outputs[at][0]
        start, last = self._answer(at, exact)
        part = channels_like(self._samples[at], exact, self.harness.constant_channels)
        values = self.history[at[0]][-depth:]
        terms = [*values, *([] if part is None else [part])]
        stride = _LAST_STRIDE if last else 1.0
        answers = [
            (self._answer(at, exact + term * stride)[0] - start) / stride
            for term in (exact, *terms)
        ]
        aim = self.exact.sample if last else self._exact_next(at)
        if aim is None:
            raise ValueError("fit: the exact run has no sample")
        columns = torch.stack(answers[1:], dim=1)
        missing = aim.double().flatten() - start + answers[0]
        return columns.T @ columns, columns.T @ missing, len(values)

    def _answer(self, at: Call, output: Tensor) -> tuple[Tensor, bool]:
        """The sampler's next input once a step gave this, or its sample after the last step."""
        found: list[Tensor] = []

        def after(call: Call, args: Sequence[Tensor]) -> Tensor:
            if call[1] != at[1]:
                found.append(self.harness.sample_of(args).double().flatten())
                raise _Stop
            return self.exact.outputs[call][0]  # another stream of the same step

        sample = self._walk(at, lambda args: output, after)
        if found:
            return found[0], False
        if sample is None:
            raise ValueError("fit: the sampler ended nowhere")
        return sample.double().flatten(), True

    def _exact_next(self, at: Call) -> Tensor:
        """What the sampler fed the denoiser after this step in the exact run."""
        calls = [*self.exact.inputs]
        later = next(call for call in calls[calls.index(at) :] if call[1] != at[1])
        return self.harness.sample_in(self.exact.inputs[later])

    def _walk(
        self,
        at: Call,
        give: Callable[[Sequence[Tensor]], Tensor],
        after: Callable[[Call, Sequence[Tensor]], Tensor] | None = None,
    ) -> Tensor | None:
        """The sampler's run: what is decided, then `give` at one call, then `after`.

        The sample that the call is fed is kept.
        """

        def route(stream: str, step: int, args: Sequence[Tensor]) -> Sequence[Tensor]:
            call = stream, step
            if call == at:
                if at not in self._samples:
                    self._samples[at] = self.harness.sample_of(args).clone()
                return (give(args).clone(),)
            if call in self.given:
                return (self.given[call].clone(),)
            if after is None:
                raise _Stop
            return (after(call, args).clone(),)

        before = {call: output for call, output in self.given.items() if call != at}
        try:
            return self.harness.through(self.example, route, before)
        except _Stop:
            return None


def fitted(
    harness: Harness,
    examples: Sequence[object],
    plan: Plan,
    recordings: Sequence[Recording],
) -> Plan:
    """The plan with weights for each step that reuses the whole step.

    Args:
        harness: that has learned.
        examples: to fit on.
        plan: whose reuses of the whole step are fitted: order n mixes the last n + 1 values, or as
            many as there are.
        recordings: an exact run of each example.
    """
    if not any(_depth(row) for rows in plan.streams.values() for row in rows):
        return plan
    return fitted_runs(harness, examples, plan, recordings)[0]


def fitted_runs(
    harness: Harness,
    examples: Sequence[object],
    plan: Plan,
    recordings: Sequence[Recording],
    known: Beginnings | None = None,
) -> tuple[Plan, list[Tensor]]:
    """As `fitted`, with each example's sample under the plan that it gives.

    Args:
        harness: as in `fitted`, and so what follows.
        examples: the same at every call with one `known`.
        plan: to be fitted.
        recordings: of the examples.
        known: what plans that began alike gave; None for nothing.
    """
    calls = [*recordings[0].outputs]
    wanted = {at: _depth(plan.streams[at[0]][at[1]]) for at in calls}
    storage = plan.storage.get(STEP, "compute")
    runs = [
        _Run(harness, example, exact, harness.following(plan), storage, _reads(plan))
        for example, exact in zip(examples, recordings, strict=True)
    ]
    known = known or Beginnings()
    fits: dict[Call, Action] = {}
    beginning: Beginning = (storage,)
    fresh = False
    for at in calls:
        row = plan.streams[at[0]][at[1]] or {}
        depth = wanted[at]
        beginning = (*beginning, (at, depth or tuple((name, str(row[name])) for name in row)))
        found = None if fresh else known.get(beginning)
        if found is not None:
            for run, output in zip(runs, found.outputs, strict=True):
                run.pass_over(at, output, computed=not depth)
            if found.fit is not None:
                fits[at] = found.fit
            continue
        fresh = True
        fit = _solved([run.equations(at, depth) for run in runs]) if depth else None
        for run in runs:
            if fit is None:
                run.compute(at)
            else:
                run.take(at, fit)
        if fit is not None:
            fits[at] = fit
        known.put(beginning, Given(fit, tuple(run.given[at] for run in runs)))
    return (with_fits(plan, fits) if fits else plan), [run.sample() for run in runs]


def with_fits(plan: Plan, fits: Mapping[Call, Action]) -> Plan:
    """The plan with these actions on the whole step."""
    streams = {
        stream: tuple(
            {STEP: fits[stream, step]} if (stream, step) in fits else row
            for step, row in enumerate(rows)
        )
        for stream, rows in plan.streams.items()
    }
    return replace(plan, streams=streams)


def _depth(row: Row) -> int:
    action = (row or {}).get(STEP)
    return 0 if action is None or action.kind != "reuse" else action.order + 1


def _reads(plan: Plan) -> bool:
    rows = (row or {} for of in plan.streams.values() for row in of)
    return any(action.reads and name != STEP for row in rows for name, action in row.items())


def _solved(equations: Sequence[tuple[Tensor, Tensor, int]]) -> Action:
    matrix = torch.stack([each[0] for each in equations]).sum(0)
    right = torch.stack([each[1] for each in equations]).sum(0)
    count = equations[0][2]
    scale = matrix.diagonal().clamp_min(torch.finfo(torch.float64).tiny).sqrt()
    unit = matrix / scale[:, None] / scale[None] + _RIDGE * torch.eye(len(scale)).to(matrix)
    found = solve(unit, right / scale) / scale
    weights = [float(f"{float(value):.{_DIGITS}g}") for value in found]
    sample = weights[count] if len(weights) > count else 0.0
    return Action("reuse", mix=tuple(weights[:count]), sample=sample)
