r"""Plans for the cases of suite `peers`, each found once, in a process of its own.

A row that calibrated would report the calibration's memory and compiled graphs as its own.

    python -m turbo4d.tools.bench.peers.calibrated --model svd --size tiny --min-psnr 35 \
        --folder out/bench-peers
"""

from __future__ import annotations

import argparse
import fcntl
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor
from turbo4d.runtime.plan import Plan
from turbo4d.tools.failures import JobError

import turbo4d

from .cases import Case, Example, case
from .sampling import sample

LEARNED_FROM = (1, 2)  # seeds of the examples to calibrate on; rows sample another


def calibrated(of: Case, min_psnr_db: float, folder: Path) -> Plan:
    """A plan that keeps a fidelity on the examples it was found with.

    Args:
        of: the case.
        min_psnr_db: of the latent, by the range of the uncached one.
        folder: that rows share.

    Raises:
        JobError: there is none, and why.
    """
    kept = plan_file(of.model, of.size, min_psnr_db, folder)
    with (folder / f"{of.size}-{of.model}.lock").open("w") as one_at_a_time:
        # Rows start together, and all plans of a case go on from one file of measurements.
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not kept.exists():
            _calibrate(of, min_psnr_db, folder)
    return Plan.load(kept)


def _calibrate(of: Case, min_psnr_db: float, folder: Path) -> None:
    found = subprocess.run(
        [
            *(sys.executable, "-m", "turbo4d.tools.bench.peers.calibrated"),
            *("--model", of.model, "--size", of.size),
            *("--min-psnr", str(min_psnr_db), "--folder", str(folder)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        lines = found.stderr.strip().splitlines() or [f"status {found.returncode}"]
        # Notes may stand after the sentence itself.
        raised = [line for line in lines if "Error: " in line] or lines
        raise JobError(f"no plan was found: {raised[-1].rpartition('Error: ')[2]}")


def plan_file(model: str, size: str, min_psnr_db: float, folder: Path) -> Path:
    """Where a plan is kept."""
    return folder / f"{size}-{model}-{min_psnr_db:g}.plan.json"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--size", required=True)
    parser.add_argument("--min-psnr", type=float, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args(argv)
    made = case(args.model, args.size)
    plan = turbo4d.calibrate(
        made.network,
        lambda denoiser, example: _sampled(made, denoiser, example),
        [made.example(seed) for seed in LEARNED_FROM],
        args.min_psnr,
        options={"geometry": dict(made.geometry), "level_unit": made.level_unit},
        state=args.folder / f"{args.size}-{args.model}.calibration.json",
    )
    kept = plan_file(args.model, args.size, args.min_psnr, args.folder)
    part = kept.with_suffix(".part")
    part.write_text(plan.to_json())
    part.replace(kept)
    return 0


def _sampled(of: Case, denoiser: Any, example: Example) -> Tensor:
    def before(step: int, timestep: Tensor, stream: str) -> Any:
        denoiser.step(step, stream=stream)
        return nullcontext()

    return sample(of, denoiser, example, before)


if __name__ == "__main__":
    sys.exit(main())
