"""The front, the fastest at a fidelity, and the table of README.md."""

import pytest
from turbo4d.tools.rivals.pareto import block, fastest, front, full_table, row_of


def row(system, seconds, db, **more):
    speedup = None if seconds is None else 6.0 / seconds
    return {"system": system, "knob": f"{db}", "seconds": seconds, "speedup": speedup,
            "psnr_mean_db": db, "psnr_worst_db": db - 1, "letters": "CK", "plans": 1,
            **more}  # fmt: skip


ROWS = [
    row("turbo4d", 0.8, 31.0),
    row("turbo4d", 1.2, 36.0),
    row("a", 1.0, 31.0),
    row("a", 0.5, 25.0),
    row("b", 2.0, 41.0),
    row("b", None, 60.0),
]
REPORT = {
    "pareto": ROWS,
    "scenes": [0, 1],
    "screening": [0],
    "timing": {"scenes": [0], "runs": 3, "device": "a machine", "threads": 2, "torch": "2.13",
               "commit": "0123456789abcdef"},
    "uncached_seconds": 6.0,
    "model": "nano",
    "steps": 20,
    "dtype": "fp32",
    "lowering": "eager",
}  # fmt: skip


def test_the_front_holds_what_nothing_beats_in_both():
    assert [(each["seconds"], each["psnr_mean_db"]) for each in front(ROWS)] == [
        (0.5, 25.0), (0.8, 31.0), (1.2, 36.0), (2.0, 41.0),
    ]  # fmt: skip


def test_the_fastest_reaches_the_target_and_was_timed():
    assert fastest(ROWS, "a", 30.0) is ROWS[2]
    assert fastest(ROWS, "a", 35.0) is None
    assert fastest(ROWS, "b", 30.0) is ROWS[4]


def test_the_table_has_ours_first_and_marks_the_fastest():
    lines = block(REPORT).splitlines()
    assert lines[2] == (
        "| turbo4d | **7.50x** (31.0 dB, worst 30.0 dB) | **5.00x** (36.0 dB, worst 35.0 dB) "
        "| not reached: 36.0 dB |"
    )
    assert lines[3].startswith("| b | 3.00x (41.0 dB, worst 40.0 dB) |")
    assert "**3.00x** (41.0 dB" in lines[3]
    assert "over 2 held-out scenes" in block(REPORT)
    assert "a machine, 2 threads" in block(REPORT)
    assert full_table(REPORT).count("| yes |") == 4


def test_what_was_not_timed_is_not_in_the_table():
    assert block(None) == "Not measured."
    untimed = {name: value for name, value in REPORT.items() if name != "timing"}
    assert block({**untimed, "pareto": [ROWS[-1]]}) == "Not measured."
    assert full_table({**untimed, "pareto": [ROWS[-1]]}) == "Not measured."


def test_a_row_takes_medians_over_runs_and_then_scenes():
    seconds = {
        "0": {"uncached": [6.0, 6.2, 9.0], "k": [1.0, 2.0, 1.5]},
        "1": {"uncached": [8.0, 8.0, 8.0], "k": [2.0, 2.0, 2.0], "j": [4.0, 4.0, 4.0]},
    }
    same = row_of("s", "k", {"0": "k", "1": "k", "2": "k"}, (30.0, 32.0, 34.0), seconds)
    assert (same["seconds"], same["plans"]) == (1.75, 1)
    assert same["speedup"] == pytest.approx((6.2 / 1.5 + 8.0 / 2.0) / 2, abs=1e-3)
    assert (same["psnr_mean_db"], same["psnr_worst_db"]) == (32.0, 30.0)
    adaptive = row_of("s", "k", {"0": "k", "1": "j", "2": "i"}, (30.0,), seconds)
    assert (adaptive["seconds"], adaptive["plans"]) == (2.75, 3)
    assert row_of("s", "k", {"0": "never"}, (30.0,), seconds)["seconds"] is None
