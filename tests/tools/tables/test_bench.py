"""The tables of README.md that reports of `turbo4d bench` give."""

import json

import pytest
from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.tables import bench, peers

MACHINE = {"device": "a machine", "threads": 2, "torch": "2.13.0"}
FACTS = {"psnr_mask_db": 37.12, "ssim": 0.99876, "weights": "trained", "scenes": [0, 1]}


def row(system, seconds, lowering="", label="", group="20-steps", facts=None, **settings):
    spec = RowSpec("cpu", group, system, "", lowering, label, settings)
    baseline = () if system == "eager" and not label else (9.0,)
    given = FACTS if facts is None else facts
    return RowResult(spec, (seconds,), baseline, seconds + 10, 0, 500_000_000, given)


def report(*rows):
    given = [one.to_json() for one in rows]
    return {"machine": MACHINE, "commit": "0123456789abcdef", "rows": given}


CPU = report(
    row("eager", 9.0),
    row("inductor", 6.0),
    row("inductor", 4.5, label="freezing"),
    row("turbo4d:balanced", 1.5, "eager"),
    row("turbo4d:balanced", 1.0, "inductor"),
    row("policy:PAB", 5.0, "eager"),
    RowResult(RowSpec("cpu", "20-steps", "turbo4d:fast"), error="it broke."),
    row("eager", 20.0, group="50-steps"),
    row("turbo4d:fast", 1.0, "native", group="50-steps"),
    row("turbo4d runtime", 0.00012, group="overhead", facts={}, place="runtime"),
    row("torch.compile alone", 0.0014, group="overhead", facts={}, place="front_door"),
    row("no guards", 0.00025, group="overhead", facts={}, place="front_door_unguarded"),
)


def test_each_system_stands_once_at_its_fastest():
    lines = bench.cpu_block(CPU).splitlines()
    assert [line.split("`")[1] for line in lines[2:] if line.startswith("| ")] == [
        "turbo4d:balanced", "inductor", "policy:PAB", "eager",
    ]  # fmt: skip
    assert lines[2] == (
        "| `turbo4d:balanced` | inductor | 1 s | **9.00x** | 4.50x | 37.1 dB | 0.9988 | 10 s | "
        "500 MB |"
    )
    assert "| `inductor` | freezing | 4.5 s | **2.00x** | 1.00x |" in lines[3]


def test_fifty_steps_have_a_table_of_their_own():
    lines = bench.fifty_block(CPU).splitlines()
    assert [line.split("`")[1] for line in lines[2:4]] == ["turbo4d:fast", "eager"]
    assert lines[5].startswith("As above, 50 steps; medians of ")
    assert bench.fifty_block(report(row("eager", 9.0))) == "Not measured."


def test_the_headline_is_of_both_runs():
    more = (row("inductor", 10.0, group="50-steps"), row("turbo4d:balanced", 2.0, group="50-steps"))
    text = bench.headline({**CPU, "rows": [*CPU["rows"], *report(*more)["rows"]]})
    assert "is in 20 steps 9.0 times as fast as eager and 4.5 times as fast as `torch.comp" in text
    assert "; in 50 steps 4.5 times as fast as eager and 5.0 times as fast as `torch.comp" in text
    assert bench.headline(CPU) == "Not measured."


def test_what_stands_under_the_table():
    text = bench.cpu_block(CPU)
    assert "(trained weights), 20 steps" in text
    assert "2 held-out scenes" in text
    assert (
        "The runtime itself takes 0.12 ms of a step; torch's front door 1.40 ms, 0.25 ms without "
        "guards on modules. 1 rows could not run. a machine, 2 threads" in text
    )


@pytest.mark.parametrize(
    "draw",
    [
        bench.headline, bench.cpu_block, bench.fifty_block, bench.gpu_block, bench.full_table,
        bench.soak_line, peers.block, peers.beside_table, peers.full_table,
    ],
)  # fmt: skip
def test_what_is_not_stored_is_not_measured(draw):
    assert draw(None) == "Not measured."


def test_the_whole_table_has_every_row_and_why_one_failed():
    text = bench.full_table(CPU)
    assert sum(line.startswith("| `") for line in text.splitlines()) == 12
    assert "| `turbo4d:fast` |  |  |  |  |  |  |  |  |  | it broke. |" in text
    assert "| overhead | seconds |" in text


def test_gpu_says_that_weights_are_random():
    facts = {"weights": "random", "cache_peak_bytes": 2_000_000, "relative_error": 0.0123}
    text = bench.gpu_block(report(row("turbo4d:exact", 3.0, "eager", "cuda graphs", "g", facts)))
    assert (
        "| `turbo4d:exact` eager cuda graphs | 3 s | **3.00x** | 10 s | 500 MB | 2 MB | 1.2e-02 |"
        in text
    )
    assert "Random weights: latency and memory only." in text


def test_a_soak_is_a_sentence():
    facts = {
        "sessions": 500, "resident_bytes": [600_000_000, 610_000_000], "growth": 0.0012,
        "slots_alive": 0, "engines_built_later": 0, "recompiles": 0,
    }  # fmt: skip
    text = bench.soak_line(report(row("turbo4d:balanced", 1.0, facts=facts)))
    assert "600 MB resident after the first, 610 MB after the last" in text
    assert "+0.12% from the second tenth's; 0 slots left" in text


def test_a_report_is_read_by_its_suites_name(tmp_path):
    assert bench.read_report(tmp_path, "cpu") is None
    (tmp_path / "bench-cpu.json").write_text(json.dumps(CPU))
    assert bench.read_report(tmp_path, "cpu") == CPU


def test_rows_of_a_further_call_on_the_same_machine_are_taken_in(tmp_path):
    (tmp_path / "bench-cpu.json").write_text(json.dumps(CPU))
    alone = row("eager", 20.0, group="9-steps")
    more = report(row("eager", 8.0), row("policy:FORA", 3.0, "native"), alone)
    path = tmp_path / "bench-cpu-policies.json"
    path.write_text(json.dumps(more))
    found = bench.read_report(tmp_path, "cpu")
    assert found is not None
    at = 1 + max(i for i, each in enumerate(CPU["rows"]) if each["group"] == "20-steps")
    # A group's rows stay together, and a baseline that was not measured yet is a row like any.
    assert found["rows"] == [*CPU["rows"][:at], more["rows"][1], *CPU["rows"][at:], more["rows"][2]]
    for wrong in ({**more, "machine": {**MACHINE, "threads": 1}}, CPU):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="does not go with bench-cpu"):
            bench.read_report(tmp_path, "cpu")
