r"""Measures the policies of other systems beside our plans on nano: time against fidelity.

Each system's knob is swept on a validation scene; what may be its fastest setting at 30, 35 or 40
dB is judged on the held-out scenes and timed on the first few of them. The file is written after
every run: an interrupted call goes on where it stopped.

Example:
    python tools/measure/rivals.py --psnr-only --plans fast.json balanced.json quality.json \
        --out tools/results/pareto-nano-v1.json
    python tools/measure/rivals.py --time-only --out tools/results/pareto-nano-v1.json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from turbo4d.runtime.errors import Turbo4DError
from turbo4d.runtime.plan import Plan
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.failures import FAILED, CallError, sentence, status_of
from turbo4d.tools.load_model import DTYPES, LoadedModel, load_model
from turbo4d.tools.parser import Parser, whole_number
from turbo4d.tools.rivals.bench import Bench
from turbo4d.tools.rivals.measure import Measurement
from turbo4d.tools.rivals.pareto import front
from turbo4d.tools.rivals.state import UNCACHED, read


def parser() -> Parser:
    """The options."""
    found = Parser(prog="measure/rivals.py", description=__doc__)
    count = whole_number(1)
    found.add_argument("--scenes", type=count, default=16, help="held-out scenes to judge by")
    found.add_argument("--screening", type=count, default=1, help="validation scenes to choose by")
    found.add_argument("--time-scenes", type=count, default=3, help="held-out scenes to time")
    found.add_argument("--runs", type=count, default=3, help="timed runs of each on each scene")
    found.add_argument("--steps", type=count, default=20)
    found.add_argument("--dtype", choices=sorted(DTYPES), default="fp32")
    found.add_argument("--plans", type=Path, nargs="*", default=[], help="plan files of ours")
    only = found.add_mutually_exclusive_group()
    only.add_argument("--psnr-only", action="store_true", help="time nothing")
    only.add_argument("--time-only", action="store_true", help="judge nothing but time what was")
    found.add_argument("--out", type=Path, required=True, help="written after every run; resumed")
    return found


def measure(args: Any, model: LoadedModel) -> dict[str, Any]:
    """What the file holds after a call.

    Args:
        args: of the call.
        model: the network.
    """
    what = {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "steps": args.steps,
        "dtype": args.dtype,
        "lowering": "eager",
    }
    found = read(args.out, what)
    found["plans"] |= {path.stem: json.loads(Plan.load(path).to_json()) for path in args.plans}
    scenes, screening = list(range(args.scenes)), list(range(args.screening))
    say = _say()
    say("compiling")
    bench = Bench(model, args.steps)
    under_way = Measurement(bench, args.out, found, scenes, screening, say)
    if not args.time_only:
        say("expecting")
        efforts = under_way.efforts()
        under_way.screen(efforts)
        under_way.judge_held_out(efforts)
    if not args.psnr_only:
        timed = scenes[: args.time_scenes]
        under_way.time(timed, args.runs)
        machine = {
            "device": device_name(torch.device("cpu")),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "commit": commit(),
        }
        found["timing"] = {"scenes": timed, "runs": args.runs, **machine}
        kept = [median(of[UNCACHED]) for of in found["seconds"].values()]
        found["uncached_seconds"] = round(median(kept), 4)
    found |= {"scenes": scenes, "screening": screening, "pareto": under_way.rows()}
    under_way.save()
    return found


def _say() -> Any:
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:7.0f} s  {text}", file=sys.stderr, flush=True)

    return say


def main(argv: Sequence[str] | None = None) -> int:
    try:
        args = parser().parse_args(argv)
        model = load_model("nano", None, DTYPES[args.dtype], torch.device("cpu"))
        found = measure(args, model)
    except (CallError, Turbo4DError, OSError) as error:
        print(f"measure-rivals: {sentence(error)}", file=sys.stderr)
        return status_of(error) or FAILED
    best = [id(row) for row in front(found["pareto"])]
    for row in sorted(found["pareto"], key=lambda row: -row["psnr_mean_db"]):
        took = "not timed" if row["seconds"] is None else f"{row['seconds']:6.3f} s"
        print(
            f"{'*' if id(row) in best else ' '} {took} {row['psnr_mean_db']:6.2f} dB "
            f"(worst {row['psnr_worst_db']:6.2f}) {row['system']}: {row['knob']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
