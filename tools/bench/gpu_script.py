"""Measures suite `gpu` in one call of under ten minutes; the next call goes on where it ended.

It needs torch, numpy, safetensors and this checkout, which need not be installed. It begins with a
minute's look at everything of torch that turbo4d leans on. Rows of a group share a process and take
turns; a row that fails, runs out of memory or out of time is recorded, and the rest goes on. What
ran out of time comes last in the next call.

Exit status: 0 every row is done, 1 some are not (call it again), 2 the call was wrong. README has
the table of tools/results/bench-gpu.json once `python tools/readme_figures.py` has run.

Examples:
    python tools/bench/gpu_script.py --out tools/results/bench-gpu.json
    python tools/bench/gpu_script.py --device cpu --model tiny --out out/gpu-small.json
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# The folders of the checkout are the packages below `turbo4d`; this folder's own files are not
# modules of their own.
sys.path[:] = [
    str(ROOT),
    *(p for p in sys.path if Path(p or ".").resolve() != ROOT / "tools/bench"),
]
import turbo4d  # noqa: E402

if str(ROOT) not in turbo4d.__path__:
    turbo4d.__path__.append(str(ROOT))

from turbo4d.tools.bench.gpu_cache import drop_half_written, keep_code  # noqa: E402
from turbo4d.tools.bench.gpu_store import Report  # noqa: E402
from turbo4d.tools.failures import (  # noqa: E402
    FAILED,
    CallError,
    sentence,
    status_of,
)  # fmt: skip
from turbo4d.tools.options import MODELS, MOST_STEPS  # noqa: E402
from turbo4d.tools.parser import Parser, whole_number  # noqa: E402

_CELL, _SMOKE = "--cell", "--smoke"
_LEAST_S = 15.0
_LONGEST_S = 1_000_000
_LATE = "time was up"


def options_of(argv: Sequence[str] | None) -> argparse.Namespace:
    """The call's words."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="a JSON file, kept from call to call"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--model", choices=MODELS)
    parser.add_argument("--dtype", choices=("bf16", "fp16", "fp32"))
    parser.add_argument("--steps", type=whole_number(1, MOST_STEPS))
    parser.add_argument(
        "--runs", type=whole_number(1, 1000), help="timed runs of each row (default: 2)"
    )
    parser.add_argument(
        "--rows", default="*", help="only those whose name matches, as 'sv4d/eager*'"
    )
    parser.add_argument(
        "--budget-s", type=seconds, default=570.0, help="of this call (default: 570)"
    )
    parser.add_argument("--smoke-s", type=seconds, default=60.0, help="for the look (default: 60)")
    parser.add_argument("--force", action="store_true", help="measure anew what is there")
    parser.add_argument("--no-smoke", action="store_true", help="leave out the look at torch")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    return parser.parse_args(argv)


def seconds(text: str) -> float:
    """An argparse type: a number of seconds."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 1 <= found <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted seconds from 1 to {_LONGEST_S}")
    return found


def child(
    word: str, asked: str, until: float, heard: Callable[[dict[str, Any]], None]
) -> str | None:
    """Runs a process of this script, and hears its lines until it ends or time is up.

    Args:
        word: what it is to be.
        asked: its line of JSON.
        until: on the monotonic clock.
        heard: takes each line.

    Returns:
        Why it did not end by itself and well; None where it did.
    """
    words = [sys.executable, str(Path(__file__).resolve()), word]
    # A session of its own, so that the compilers it starts end with it.
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a pipe that was asked for is not there.")
    process.stdin.write(asked)
    process.stdin.close()
    lines: queue.Queue[str | None] = queue.Queue()
    stdout = process.stdout

    def read() -> None:
        for line in stdout:
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while (left := until - time.monotonic()) > 0:
            try:
                line = lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                status = process.wait()
                return None if status == 0 else f"its process ended with status {status}"
            if line.startswith("{"):
                heard(json.loads(line))
        return _LATE
    finally:
        with suppress(ProcessLookupError):  # all of them ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()
        stdout.close()


def measure_group(
    specs: Sequence[Any], folder: Path, report: Report, until: float, say: Callable[[str], None]
) -> None:
    """Runs the rows of a group that are not done, their baseline with them, until time is up."""
    left = sorted((spec for spec in specs if not report.has(spec.digest)), key=report.late)
    while left:
        first = specs[0]
        run = left if first in left or first.system != "eager" else [first, *left]
        now: dict[str, str] = {}
        own = {spec.digest for spec in left}

        def heard(line: dict[str, Any], now: dict[str, str] = now, own: set[str] = own) -> None:
            if "now" in line:
                now.update(line)
                say(f"{line['now']}: {line['stage']}")
            elif line["row"]["digest"] in own:
                report.put(line["row"], bool(line.get("done")))

        asked = {"specs": [spec.to_json() for spec in run], "folder": str(folder)}
        ended = child(_CELL, json.dumps(asked), until, heard)
        if ended is None:
            return
        say(f"{now.get('now', specs[0].group)}: {ended}")
        failed = [spec for spec in run if spec.name == now.get("now")]
        if ended == _LATE:
            for spec in failed:
                report.ran_out(spec, now["stage"])
            return
        for spec in failed:
            from turbo4d.tools.bench.row import RowResult

            report.put(RowResult(spec=spec, error=f"{ended}.").to_json(), done=False)
        left = [spec for spec in left if spec not in failed and not report.has(spec.digest)]
        if not failed or first in failed:
            return


def machine_of(device: str) -> dict[str, Any]:
    """The machine and the versions, as a report names them."""
    import platform

    import torch
    from turbo4d.tools.device import choose_device
    from turbo4d.tools.environment import device_name

    chosen = choose_device(device)
    found: dict[str, Any] = {
        "device": device_name(chosen),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if chosen.type == "cuda":
        properties = torch.cuda.get_device_properties(chosen)
        found["memory_bytes"] = properties.total_memory
        found["capability"] = f"{properties.major}.{properties.minor}"
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 0 where every row is done, 1 where some are left, 2 for a wrong call."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [_CELL]:
        from turbo4d.tools.bench.gpu_cell import main as cell

        return cell(sys.stdin.read())
    if words[:1] == [_SMOKE]:
        from turbo4d.tools.bench.gpu_smoke import main as smoke

        return smoke(sys.stdin.read())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    try:
        return _measure(options_of(words))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what is not done.", file=sys.stderr)
        return FAILED
    except (CallError, OSError) as error:
        print(f"gpu_script: {sentence(error)}", file=sys.stderr)
        return status_of(error) or FAILED


def _measure(args: argparse.Namespace) -> int:
    begun = time.monotonic()
    folder = args.out.with_name(f"{args.out.name}.files")
    keep_code(folder / "inductor")
    from turbo4d.tools.bench.gpu_report import noted, text_of
    from turbo4d.tools.bench.gpu_suite import rows
    from turbo4d.tools.bench.suite import SuiteOptions

    more = {"dtype": args.dtype, "steps": args.steps}
    options = SuiteOptions(device=args.device, model=args.model, runs=args.runs, more=more)
    known = rows(options)
    specs = [spec for spec in known if fnmatch.fnmatchcase(spec.name, args.rows)]
    if not specs:
        raise CallError(f"--rows {args.rows!r} matches no row; --list names them.")
    if args.list:
        print("\n".join(spec.name for spec in specs))
        return 0
    report = Report(args.out, machine_of(args.device), args.force)
    report.refuse_others(known)
    folder.mkdir(parents=True, exist_ok=True)
    drop_half_written(folder)
    until = begun + args.budget_s

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:5.0f} s  {text}", file=sys.stderr, flush=True)

    looked = report.data["smoke"] and all(probe["ok"] for probe in report.data["smoke"])
    if not args.no_smoke and not looked:
        report.data["smoke"] = []
        _look(report, args.device, min(until, time.monotonic() + args.smoke_s), say)
    groups: dict[str, list[Any]] = {}
    for spec in specs:
        groups.setdefault(spec.group, []).append(spec)
    for group in sorted(groups.values(), key=lambda specs: any(map(report.late, specs))):
        if until - time.monotonic() > _LEAST_S:
            measure_group(group, folder, report, until, say)
    report.data["rows"] = noted(report.data["rows"], [spec.name for spec in known])
    report.write()
    left = [spec.name for spec in specs if not report.has(spec.digest)]
    print(text_of(report.data))
    print(f"written to {args.out}")
    if left:
        print(_rest(left, len(specs), report))
    return 1 if left else 0


def _rest(left: Sequence[str], count: int, report: Report) -> str:
    """What the next call is for: rows that failed, and those that nobody came to."""
    rows = {row["name"]: row for row in report.data["rows"]}
    failed = [name for name in left if name in rows and rows[name]["error"]]
    failed = [name for name in failed if not rows[name].get("late")]
    said = f", {len(failed)} of them because they failed, such as {failed[0]}" if failed else ""
    return f"{len(left)} of {count} rows are not done{said}; the same call goes on with them."


def _look(report: Report, device: str, until: float, say: Callable[[str], None]) -> None:
    """Tries what turbo4d leans on; each probe is kept as it comes."""

    def heard(line: dict[str, Any]) -> None:
        report.data["smoke"].append(line)
        say(f"smoke: {line['name']}: {'ok' if line['ok'] else line['reason']}")
        report.write()

    ended = child(_SMOKE, json.dumps({"device": device}), until, heard)
    if ended is not None:
        heard({"name": "the look itself", "ok": False, "reason": ended, "seconds": None})


if __name__ == "__main__":
    sys.exit(main())
