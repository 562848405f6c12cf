"""One process for a group of rows: they share the network, and take turns.

A full-size network takes most of a minute to capture, so rows that differ in their plan alone share
a process. Each line of its output is a row as far as it is known: after its first run and after
each timed one, the last with the row's facts; so whoever reads them may end the process any time.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from turbo4d.runtime.errors import Turbo4DError
from turbo4d.tools.bench.compat import graph_breaks, recompiles
from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.bench.suite import Job, Suite, load_suite
from turbo4d.tools.environment import commit
from turbo4d.tools.failures import CallError, JobError, foreseen, sentence
from turbo4d.tools.timing import timed

# What a row may fail with while the rest goes on; anything else ends the process, and whoever
# started it begins another without the row.
_KNOWN = (RuntimeError, Turbo4DError, JobError, CallError, OSError)
_ADVICE = " Set TORCHDYNAMO_VERBOSE=1"
Told = Callable[[dict[str, Any]], None]


@dataclass
class Held:
    """A row that runs.

    Args:
        spec: of the row.
        job: its job.
        first_call_s: of its first run.
        seconds: of its timed runs so far.
        facts: after the last of them.
    """

    spec: RowSpec
    job: Job
    first_call_s: float
    seconds: list[float] = field(default_factory=list[float])
    facts: dict[str, Any] | None = None


def run_group(specs: Sequence[RowSpec], folder: Path, tell: Told) -> None:
    """Runs the rows in turn.

    Args:
        specs: of one group, the baseline first.
        folder: for files that rows share.
        tell: told {"now": name} before anything is done to a row, and {"row": ...} after it.
    """
    suite = load_suite(specs[0].suite)
    held = [one for spec in specs if (one := _prepared(suite, spec, folder, tell)) is not None]
    for turn in range(max((one.spec.runs for one in held), default=0)):
        order = held if turn % 2 == 0 else held[::-1]
        for one in [one for one in order if turn < one.spec.runs]:
            tell({"now": one.spec.name, "stage": f"run {turn + 1} of {one.spec.runs}"})
            try:
                _run(one)
            except _KNOWN as error:
                held = [other for other in held if other is not one]
                tell(_failed(one.spec, error))
            else:
                tell(_result(one, held))
    for one in held:  # once more, beside all runs of the baseline
        tell(_result(one, held))
        one.job.close()


def _run(one: Held) -> None:
    """A timed run; after the last, what is to be said of the row."""
    with torch.no_grad():
        one.seconds.append(timed(one.job.run, one.job.device)[1])
    if len(one.seconds) == one.spec.runs:
        counts = {"graph_breaks": graph_breaks(), "recompiles": recompiles()}
        one.facts = {**counts, **one.job.facts()}


def _prepared(suite: Suite, spec: RowSpec, folder: Path, tell: Told) -> Held | None:
    tell({"now": spec.name, "stage": "first run"})
    try:
        job = suite.prepare(spec, folder)

        def first() -> torch.Tensor:
            job.first()
            return torch.empty(0)

        with torch.no_grad():
            took_s = timed(first, job.device)[1]
    except _KNOWN as error:
        tell(_failed(spec, error))
        return None
    one = Held(spec, job, took_s)
    tell(_result(one, ()))
    return one


def _result(one: Held, held: Sequence[Held]) -> dict[str, Any]:
    """The row so far; its baseline is the group's first row, if it runs the network as it is."""
    baseline: tuple[float, ...] = ()
    if held and held[0] is not one and held[0].spec.system == "eager":
        baseline = tuple(held[0].seconds)
    result = RowResult(
        spec=one.spec,
        seconds=tuple(one.seconds),
        baseline=baseline,
        first_call_s=one.first_call_s,
        facts=one.facts or {},
        commit=_commit(),
    )
    return {"row": result.to_json(), "done": one.facts is not None}


@cache
def _commit() -> str | None:
    return commit()


def _failed(spec: RowSpec, error: Exception) -> dict[str, Any]:
    """A row that could not run, in a sentence; memory that it held is given back."""
    traceback.print_exception(error)
    lacking = isinstance(error, torch.OutOfMemoryError)
    # Dynamo adds advice for whoever works on torch.
    said = _memory(error) if lacking else sentence(foreseen(error) or error).split(_ADVICE)[0]
    named = said if lacking or foreseen(error) else f"{type(error).__name__}: {said}"
    error.__traceback__ = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    result = replace(RowResult(spec=spec, commit=_commit()), error=named)
    # Memory that is not there will not be there the next time.
    return {"row": result.to_json() | {"out_of_memory": lacking}, "done": lacking}


def _memory(error: Exception) -> str:
    first = str(error).partition(". ")[0].rstrip(".")
    return f"out of memory: {first}."


def main(asked: str) -> int:
    """Runs the group that a line of JSON names; answers go to stdout, all else to stderr."""
    given = json.loads(asked)
    print_line = sys.stdout.write

    def tell(line: dict[str, Any]) -> None:
        print_line(f"{json.dumps(line)}\n")
        sys.stdout.flush()

    specs = [RowSpec.from_json(spec) for spec in given["specs"]]
    run_group(specs, Path(given["folder"]), tell)
    return 0
