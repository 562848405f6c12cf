r"""Draws the page of a calibration anew, with what was measured since: rivals, other images.

Example:
    turbo4d generate --scene 0 --plan plan.json --compare --out scene
    python tools/draw_report.py plan.report.json --pareto tools/results/pareto-nano-v1.json \
        --images scene/samples.safetensors --out plan.html --force
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from turbo4d.compiler.calibrate.report import SCHEMA_VERSION
from turbo4d.runtime.errors import Turbo4DError
from turbo4d.tools.calibration.page import page
from turbo4d.tools.failures import FAILED, CallError, sentence, status_of
from turbo4d.tools.outputs import output_file
from turbo4d.tools.parser import Parser

_SAME = ("model", "weights_sha256", "steps", "dtype")  # what both files must be about


def parser() -> Parser:
    """The options."""
    found = Parser(prog="draw_report.py", description=__doc__)
    found.add_argument("report", type=Path, help="plan.report.json of `turbo4d calibrate`")
    found.add_argument("--pareto", type=Path, help="what measure/rivals.py wrote")
    found.add_argument("--images", type=Path, help="samples.safetensors of `generate --compare`")
    found.add_argument("--out", type=Path, required=True, help="the page")
    found.add_argument("--force", action="store_true", help="replace what --out names")
    return found


def draw(report: Path, pareto: Path | None, images: Path | None) -> str:
    """The page.

    Args:
        report: of a calibration.
        pareto: rivals' figures, None for those in the report.
        images: baseline and turbo, None for none.

    Raises:
        CallError: a file is not what it should be, or about another model.
    """
    held = _json(report, "plan")
    if (version := held.get("schema_version")) != SCHEMA_VERSION:
        raise CallError(
            f"{str(report)!r} has schema_version {version!r}; this turbo4d draws {SCHEMA_VERSION}. "
            "Calibrate anew, or draw it with the turbo4d that wrote it."
        )
    if pareto is not None:
        rivals = _json(pareto, "pareto")
        for field in _SAME:
            if rivals.get(field) != held.get(field):
                raise CallError(
                    f"--pareto {str(pareto)!r} was measured with {field} {rivals.get(field)!r}, "
                    f"the report with {held.get(field)!r}; name one of the same."
                )
        held = {**held, "pareto": rivals["pareto"], "notes": [*held["notes"], _note(rivals)]}
    return page(held, None if images is None else _images(images))


def _note(rivals: Mapping[str, Any]) -> str:
    timing = rivals.get("timing") or {}
    return (
        f"The policies of others were judged on {len(rivals.get('scenes') or [])} held-out scenes "
        f"and timed on {timing.get('device', 'a machine not named')}, "
        f"{timing.get('threads', 'unknown')} threads, {timing.get('runs', 'unknown')} runs of each "
        f"on {len(timing.get('scenes') or [])} scenes, commit {timing.get('commit', 'unknown')}: "
        "apart from the runs of this plan."
    )


def _json(path: Path, field: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CallError(f"{str(path)!r} is not JSON; name another file.") from error
    if not isinstance(found, dict) or field not in found:
        raise CallError(f"{str(path)!r} has no field {field!r}; name another file.")
    return found


def _images(path: Path) -> dict[str, Tensor]:
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise CallError(f"--images {str(path)!r} is no safetensors file; name another.") from error
    if not {"baseline", "turbo"} <= found.keys():
        raise CallError(
            f"--images {str(path)!r} holds {', '.join(sorted(found))}; wanted baseline and turbo."
        )
    return {"before": found["baseline"], "after": found["turbo"]}


def main(argv: Sequence[str] | None = None) -> int:
    try:
        args = parser().parse_args(argv)
        text = draw(args.report, args.pareto, args.images)
        with output_file(args.out, force=args.force) as path:
            path.write_text(text, encoding="utf-8")
    except (CallError, Turbo4DError, OSError) as error:
        print(f"draw_report: {sentence(error)}", file=sys.stderr)
        return status_of(error) or FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
