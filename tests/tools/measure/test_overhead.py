"""The script that measures overhead runs, and its front doors do what they say."""

import json

import torch
from turbo4d.tools.measure.overhead import main


def test_it_reports_each_place(tmp_path):
    torch._dynamo.reset()
    main(["--parameters", "16", "--runs", "1", "--out", str(tmp_path / "overhead.json")])
    report = json.loads((tmp_path / "overhead.json").read_text())
    assert report["parameters"] == 16
    assert report["runs"] == 1
    assert list(report["rows"]) == [
        "runtime", "front_door", "front_door_unguarded", "front_door_and_runtime",
        "front_door_and_runtime_unguarded",
    ]  # fmt: skip
    for row in report["rows"].values():
        assert row["processor_median_us"] > 0
        assert 0 < row["p10_us"] <= row["median_us"] <= row["p90_us"]
    assert report["device"].startswith("cpu: ")
