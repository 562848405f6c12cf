"""What `turbo4d bench` does once its call has been read: every group's rows, then the report."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from turbo4d.tools.bench.countdown import Countdown
from turbo4d.tools.bench.group import Group, by_group
from turbo4d.tools.bench.plot import draw
from turbo4d.tools.bench.process import RowProcess
from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.bench.store import SCHEMA_VERSION, Store, text
from turbo4d.tools.bench.suite import Suite, SuiteOptions, follow_ups, load_suite
from turbo4d.tools.bench.table import told
from turbo4d.tools.device import choose_device
from turbo4d.tools.environment import commit, device_name
from turbo4d.tools.failures import CallError, JobError
from turbo4d.tools.outcome import Outcome

Say = Callable[[str], None]
# Whose versions figures may depend on, where they are installed.
_VERSIONS = (
    "cache-dit", "DeepCache", "diffusers", "numpy", "onnxruntime", "onnxruntime-gpu", "tomesd",
    "triton",
)  # fmt: skip


def benchmark(
    args: argparse.Namespace, paths: Sequence[Path], say: Say
) -> tuple[Outcome, Callable[[], None]]:
    """Carry out the command.

    Args:
        args: the call, as checked.
        paths: where report, picture and, with --profile, trace are written for the time being.
        say: told what is going on.

    Returns:
        What came of it, and what lets go of the rows kept meanwhile: to be called once the report
        is in its place.
    """
    options = SuiteOptions(
        quick=args.quick, runs=args.runs, scenes=args.scenes, sessions=args.sessions,
        seed=args.seed, device=args.device, model=args.model,
    )  # fmt: skip
    machine = machine_of(choose_device(args.device))
    suite, store = load_suite(args.suite), Store(args.out, machine)
    if args.profile and not hasattr(suite, "profile"):
        raise CallError(f"--profile is nothing that suite {args.suite!r} knows; leave it out.")
    groups = chosen(by_group(suite.rows(options)), args.rows)
    rows = measured(args, suite, store, options, groups, say)
    report = {
        "schema_version": SCHEMA_VERSION,
        "suite": args.suite,
        "machine": machine,
        "commit": commit(),
        "rows": [row.to_json() for row in rows],
    }
    lines = [told(report)]
    picture: Any = getattr(suite, "draw", draw)
    picture(report, paths[1])
    if args.profile:
        say("profiling")
        lines.append(profiled(args, suite, options, paths[2]))
    paths[0].write_text(text(report))
    failed = [row for row in rows if row.error is not None]
    if failed:
        lines.append(
            f"{len(failed)} of {len(rows)} rows could not run; the same command with --force tries "
            "these alone again."
        )
    lines.append(f"written to {args.out} and {args.out.with_suffix('.png')}")
    failure = (
        f"no row could run; the first: {failed[0].error}" if len(failed) == len(rows) else None
    )
    let_go: Callable[[], None] = (lambda: None) if failed else store.remove
    return Outcome(report, "\n\n".join(lines), failure), let_go


def measured(
    args: argparse.Namespace,
    suite: Suite,
    store: Store,
    options: SuiteOptions,
    groups: Sequence[Sequence[RowSpec]],
    say: Say,
) -> list[RowResult]:
    """Every row, from the store or measured now.

    Raises:
        JobError: it was interrupted.
    """
    store.folder.mkdir(parents=True, exist_ok=True)
    rest = Countdown([spec for group in groups for spec in group], store, say)
    opens = partial(RowProcess, folder=store.folder, limit_s=args.limit)
    runner = Group(store, opens, args.together, commit(), rest.say)
    rows: list[RowResult] = []
    try:
        for specs in groups:
            rows += runner.run(
                specs,
                lambda found: rest.more(
                    [spec for spec in follow_ups(suite, found, options) if _named(spec, args.rows)]
                ),
            )
    except KeyboardInterrupt as error:
        raise JobError(
            f"interrupted; {store.done} rows are kept in {str(store.path)!r}, and the same command "
            "goes on with the others."
        ) from error
    return rows


def chosen(groups: Sequence[Sequence[RowSpec]], glob: str | None) -> list[list[RowSpec]]:
    """The rows that --rows names, each group with its baseline.

    Raises:
        CallError: it names none.
    """
    found = [
        [spec for at, spec in enumerate(group) if at == 0 or _named(spec, glob)]
        for group in groups
        if any(_named(spec, glob) for spec in group)
    ]
    if not found:
        known = ", ".join(repr(spec.name) for group in groups for spec in group)
        raise CallError(f"--rows {glob!r} matches no row; there are {known}.")
    return found


def _named(spec: RowSpec, glob: str | None) -> bool:
    return glob is None or fnmatchcase(spec.name, glob)


def profiled(args: argparse.Namespace, suite: Any, options: SuiteOptions, trace: Path) -> str:
    """The table of --profile; the trace lies beside the report."""
    table: str = suite.profile(options, trace)
    return f"{table}\n\ntrace in {args.out.with_suffix('.trace.json')}"


def machine_of(device: torch.device) -> dict[str, Any]:
    """What figures depend on besides the rows and the checkout."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.system(),
        "versions": {name: version for name in _VERSIONS if (version := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
