"""The tables of drift are what was measured, and can be read between their points."""

import json
from pathlib import Path

from turbo4d.runtime.drift import DRIFT, measured_as

STORED = Path(__file__).parents[2] / "tools" / "results" / "drift-nano-v1.json"


def test_the_tables_are_the_stored_measurement():
    stored = json.loads(STORED.read_text())
    assert set(stored["density"]) == set(DRIFT)
    for kind, column in stored["density"].items():
        assert tuple(sorted(zip(stored["ln_sigma"], column, strict=True))) == DRIFT[kind]


def test_the_tables_rise_and_are_positive():
    for table in DRIFT.values():
        points = [at for at, _ in table]
        assert points == sorted(set(points))
        assert all(density > 0 for _, density in table)


def test_blocks_drift_as_chains_do():
    assert measured_as("block") == "chain"
    assert [measured_as(kind) for kind in DRIFT] == list(DRIFT)
