"""The process of one row: `python -m turbo4d.tools.bench.worker`.

It reads a line {"spec": ..., "folder": ...} and then a word a line: "first", "run", "facts". Each
is answered by one line of JSON. Nothing else reaches that channel: what libraries print goes to
stderr. It ends when its input does.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.bench.suite import Job, load_suite
from turbo4d.tools.failures import foreseen, sentence


def main() -> int:
    """Serve one row.

    Returns:
        Exit status: 0 done; an error ends the process with 1 after it was answered.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def failed(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        known = foreseen(error)
        said = sentence(known) if known else f"{kind.__name__}: {sentence(error)}"
        _say(answers, {"error": said})
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = failed
    serve(sys.stdin, lambda answer: _say(answers, answer))
    return 0


def serve(asked: TextIO, answer: Callable[[Mapping[str, Any]], None]) -> None:
    """Answer each line.

    Args:
        asked: the lines.
        answer: takes what a line asked for.
    """
    given = json.loads(asked.readline())
    spec = RowSpec.from_json(given["spec"])
    job = load_suite(spec.suite).prepare(spec, Path(given["folder"]))
    answer({"ready": True, "floor_bytes": peak_bytes()})
    for line in asked:
        answer(_does(job, line.strip()))
    job.close()


def _does(job: Job, word: str) -> Mapping[str, Any]:
    import torch
    from turbo4d.tools.timing import timed

    with torch.no_grad():
        if word == "run":
            return {"seconds": timed(job.run, job.device)[1]}
        if word == "first":

            def first() -> torch.Tensor:
                job.first()
                return torch.empty(0)

            return {"seconds": timed(first, job.device)[1]}
    peak = peak_bytes()
    return {"facts": {**_of_dynamo(), **job.facts()}, "peak_bytes": peak}


def peak_bytes() -> int:
    """Resident memory of this process at most, so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _of_dynamo() -> dict[str, Any]:
    from turbo4d.tools.bench.compat import graph_breaks, recompiles

    return {"graph_breaks": graph_breaks(), "recompiles": recompiles()}


def _say(answers: TextIO, answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
