"""The timing of the fused attention: its sites, its candidates, and what the report says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turbo4d.runtime.engines.triton_tuning import Tuning, tuning_of
from turbo4d.runtime.token_attention import token_attention
from turbo4d.tools.bench.gpu_kernels import KernelsJob, Site, candidates, sites_of
from turbo4d.tools.bench.gpu_network import Work
from turbo4d.tools.bench.gpu_report import text_of
from turbo4d.tools.bench.row import RowSpec

SETTINGS = {"model": "tiny", "device": "cpu", "dtype": "fp32", "steps": 4, "seed": 0}


def launch(
    x: Tensor, norm: Any, weights: Any, heads: int, scale: float, add: Tensor, cut: Tuning
) -> Tensor:
    """Torch in the kernels' place: it refuses one cut, and computes another wrongly."""
    if cut.stages == 3:
        raise RuntimeError("out of resource: shared memory\nmore of it")
    attend: Any = token_attention
    return attend(x, *norm, *weights, heads, scale, add) * (2 if cut.rows == 128 else 1)


def job() -> KernelsJob:
    spec = RowSpec(
        suite="gpu", group="tiny/kernels", system="kernels", plan="", lowering="", label="",
        settings={**SETTINGS, "kind": "kernels"}, warmups=0, runs=1,
    )  # fmt: skip
    return KernelsJob(spec, Path(), launch)


def test_the_sites_are_those_of_the_network():
    assert sites_of(Work.of(SETTINGS)) == [
        Site("camera", 6, 256, 4, 32, 2), Site("motion", 2, 1024, 3, 32, 2),
        Site("camera", 6, 64, 4, 64, 4), Site("motion", 2, 256, 3, 64, 4),
    ]  # fmt: skip
    full = sites_of(Work.of({**SETTINGS, "model": "sv4d"}))
    assert [(site.channels, site.heads) for site in full[::2]] == [(320, 5), (640, 10), (1280, 20)]


def test_the_rule_comes_first_and_no_cut_twice():
    for channels in (32, 320, 1280):
        first = tuning_of(channels, 5, 8, torch.bfloat16)
        found = candidates(first)
        assert found[0] == first
        assert len({*found}) == len(found) <= 9


def test_the_fastest_that_computes_the_right_thing_is_told():
    done = job()
    done.first()
    facts = json.loads(json.dumps(done.facts()))
    assert len(facts["kernels"]) == 4
    for site in facts["kernels"]:
        assert site["best"]["rows"] != 128
        assert site["best"]["timed"]
        assert site["best_ms"] <= site["rule_ms"]
        assert any("off by 1.0e+00" in why for why in site["refused"])
        assert any(why.endswith("out of resource: shared memory") for why in site["refused"])
    row = {
        "name": "tiny/kernels/kernels", "system": "kernels", "settings": {"kind": "kernels"},
        "error": None, **facts,
    }  # fmt: skip
    report = {"machine": {"device": "a CPU", "torch": "2.13"}, "smoke": [], "rows": [row]}
    text = text_of(report)
    assert "tiny/kernels/kernels, attention from norm to sum" in text
    assert "camera of 4 tokens, 32 channels: " in text
    site = {**facts["kernels"][0], "best_ms": None, "refused": ["x: too large"]}
    text = text_of({**report, "rows": [{**row, "kernels": [site]}]})
    assert "no way to cut it ran; x: too large" in text
