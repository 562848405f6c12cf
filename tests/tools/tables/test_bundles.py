"""The README's figures of bundles: each is a stored report's, and what is not stored says so."""

from __future__ import annotations

import json
from pathlib import Path

from turbo4d.tools.tables.bundles import ENGINES, FULL, RUNTIME, block

MACHINE = {"device": "cpu: X", "threads": 2, "torch": "2", "commit": "0123456789abcdef"}


def test_nothing_stored_is_nothing_measured(tmp_path: Path) -> None:
    assert block(tmp_path) == "Not measured."


def test_cold_start_stands_beside_loading_the_weights_alone(tmp_path: Path) -> None:
    way = {
        "files_bytes": 2e6, "weights_bytes": 1e6, "sampled_bytes": 3e6, "seconds": 0.5,
        "start_s": 3.0,
    }  # fmt: skip
    report = {**MACHINE, "plan": "p", "steps": 20, "runs": 5, "weights_alone": {"start_s": 1.5}}
    (tmp_path / RUNTIME).write_text(json.dumps({**report, "ways": {"shared": way}}))
    row = next(line for line in block(tmp_path).splitlines() if "mapped copy" in line)
    cells = [cell.strip() for cell in row.strip("| ").split("|")]
    assert cells[1:] == ["2.0 MB", "1.0 MB", "3.0 MB", "0.50 s", "3.00 s (2.0x)"]


def test_engines_that_were_not_run_say_so(tmp_path: Path) -> None:
    ways = {way: {"layers": 7, "engine_bytes": size, "packed_bytes": size / 2}
            for way, size in (("embedded", 4e6), ("inputs", 2e6))}  # fmt: skip
    report = {
        **MACHINE, "plan": "p", "model": "nano", "target": "tensorrt-rtx:sm89",
        "status": "built, not executed", "s": {"inputs": 9.0}, "weights_bytes": 1e6,
        "engines": [{"name": "compute", "graph_bytes": 1e6, **ways}],
    }  # fmt: skip
    (tmp_path / ENGINES).write_text(json.dumps(report))
    drawn = block(tmp_path)
    assert "| `compute` | 7 | 1.0 MB | 4.0 MB | 2.0 MB | 1.0 MB |" in drawn
    assert "built, not executed" in drawn


def test_a_graph_without_an_engine_is_no_engine(tmp_path: Path) -> None:
    graph = {"name": "compute", "nodes": 9, "flops": 2e12, "graph_bytes": 1e6}
    built = {
        **graph, "name": "level", "network_layers": 3, "engine_bytes": 5e6, "packed_bytes": 2e6,
        "build_s": 4.0, "status": "built, not executed",
    }  # fmt: skip
    report = {
        **MACHINE, "plan": "p", "model": "sv4d", "dtype": "fp16", "target": "tensorrt-rtx:sm89",
        "level": "level.3", "weights_bytes": 1e9, "peak_bytes": 2e9, "graphs": [graph, built],
    }  # fmt: skip
    (tmp_path / FULL).write_text(json.dumps(report))
    drawn = block(tmp_path)
    assert "| `compute` | 2.00 | 9 | 1.0 MB |  |  |  | graph written and checked |" in drawn
    assert "| `level`, level.3 alone | 2.00 | 9 | 1.0 MB | 3 | 2.0 MB | 4 s | built, not" in drawn


def test_all_engines_stand_beside_the_one_that_computes(tmp_path: Path) -> None:
    built = {
        "nodes": 9, "flops": 2e12, "graph_bytes": 1e6, "network_layers": 3, "build_s": 4.0,
        "engine_bytes": 49e6, "packed_bytes": 9e6, "status": "built, not executed",
    }  # fmt: skip
    report = {
        **MACHINE, "plan": "p", "model": "sv4d", "dtype": "fp16", "target": "tensorrt-rtx:sm89",
        "level": "level.3", "weights_bytes": 90e6, "peak_bytes": 2e9,
        "graphs": [{**built, "name": name} for name in ("compute", "core.reuse", "level")],
    }  # fmt: skip
    (tmp_path / FULL).write_text(json.dumps(report))
    assert "has 1.100 times" in block(tmp_path)  # (90 + 2 * 10) / (90 + 10)
    assert "(1.36 times once" in block(tmp_path)  # (90 + 2 * 50) / (90 + 50)
    del report["graphs"][1]["engine_bytes"]
    (tmp_path / FULL).write_text(json.dumps(report))
    assert "times the bytes" not in block(tmp_path)
