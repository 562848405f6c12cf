"""Writes the figures of README.md and tools/results/README.md from the reports stored beside it.

Example:
    python tools/readme_figures.py            # rewrite both
    python tools/readme_figures.py --check    # exit 1 where one is not what the reports say
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from turbo4d.tools.rivals import pareto
from turbo4d.tools.tables import bench, peers
from turbo4d.tools.tables.results import tables

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "tools" / "results"
TABLES = RESULTS / "README.md"


def blocks(folder: Path) -> dict[str, str]:
    """Of each block of README.md its name and its text.

    Args:
        folder: of the reports.
    """
    measured = folder / "pareto-nano-v1.json"
    return {
        "headline": bench.headline(bench.read_report(folder, "cpu")),
        "bench-cpu": bench.cpu_block(bench.read_report(folder, "cpu")),
        "bench-cpu-50": bench.fifty_block(bench.read_report(folder, "cpu")),
        "bench-peers": peers.block(bench.read_report(folder, "peers")),
        "bench-gpu": bench.gpu_block(bench.read_report(folder, "gpu")),
        "pareto": pareto.block(json.loads(measured.read_text()) if measured.exists() else None),
    }


def with_blocks(page: str, texts: Mapping[str, str]) -> str:
    """A page with what stands between each block's markers replaced.

    Args:
        page: as Markdown, with lines `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
        texts: by the block's name.

    Raises:
        ValueError: the page has no such block, or has it twice.
    """
    for name, text in texts.items():
        between = re.compile(rf"(?<=<!-- {name}:begin -->\n).*?(?=<!-- {name}:end -->)", re.DOTALL)
        page, found = between.subn(lambda _, text=text: f"{text}\n", page)
        if found != 1:
            raise ValueError(f"block {name!r} stands {found} times in the page; it must once.")
    return page


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the README's figures from stored reports.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    args = parser.parse_args(argv)
    wanted = {
        README: with_blocks(README.read_text(), blocks(RESULTS)),
        TABLES: tables(RESULTS),
    }
    if args.check:
        return int(any(not p.exists() or p.read_text() != text for p, text in wanted.items()))
    for path, text in wanted.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
