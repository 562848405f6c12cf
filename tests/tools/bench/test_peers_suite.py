"""Suite `peers`: its rows, what they call for, and rows that are really run."""

import dataclasses
import io
import json
import re

import pytest
import torch
from turbo4d.tools.bench import worker
from turbo4d.tools.bench.peers import suite
from turbo4d.tools.bench.peers.cases import case
from turbo4d.tools.bench.peers.offers import OFFERS, TRANSFORMERS, UNETS
from turbo4d.tools.bench.peers.operations import share_note
from turbo4d.tools.bench.peers.peer_job import PeerJob
from turbo4d.tools.bench.peers.prepared import Prepared
from turbo4d.tools.bench.row import RowResult
from turbo4d.tools.bench.suite import SuiteOptions
from turbo4d.tools.failures import CallError, JobError

pytest.importorskip("diffusers", reason="the networks of suite peers come from it")

SYSTEM = re.compile(r"eager|inductor|turbo4d:\w+|peer:(DeepCache|tomesd|diffusers|cache-dit)")
SVD = SuiteOptions(quick=True, model="tiny-svd")


def rows_of(model, **options):
    return suite.rows(SuiteOptions(model=model, **options))


def test_rows_have_names_of_their_own_and_known_systems():
    rows = suite.rows(SuiteOptions())
    assert len({row.name for row in rows}) == len(rows)
    assert len({row.digest for row in rows}) == len(rows)
    assert all(SYSTEM.fullmatch(row.system) for row in rows)
    groups = dict.fromkeys(row.group for row in rows)
    first = [next(row for row in rows if row.group == group).system for group in groups]
    assert first == ["eager"] * len(groups)


def test_every_package_stands_on_every_model_that_it_covers():
    assert {offer.package for offer in OFFERS} == {"DeepCache", "tomesd", "diffusers", "cache-dit"}
    rows = suite.rows(SuiteOptions())
    for offer in OFFERS:
        assert set(offer.models) <= {*UNETS, *TRANSFORMERS}
        found = {
            row.settings["model"]
            for row in rows
            if row.system == f"peer:{offer.package}"
            and row.settings["offer"] == offer.label
            and row.settings["size"] == "tiny"
        }
        assert found == set(offer.models)


def test_only_tiny_models_are_compiled_and_quick_compiles_none():
    compiled = [row for row in suite.rows(SuiteOptions()) if row.settings.get("compile")]
    assert {row.settings["size"] for row in compiled} == {"tiny"}
    assert any(row.system == "inductor" for row in compiled)
    quick = suite.rows(SuiteOptions(quick=True))
    assert not any(row.settings.get("compile") or row.lowering == "inductor" for row in quick)


def test_a_model_is_named_with_its_size():
    assert {row.group for row in rows_of("mid-wan")} == {"mid-wan"}
    with pytest.raises(CallError, match=r"^--model 'svd' is not in suite 'peers'; choose mid-cog"):
        rows_of("svd")


def result(system, seconds, decibels, baseline=(1.0,), error=None):
    row = next(row for row in suite.rows(SVD) if row.system == system)
    return RowResult(row, (seconds,), baseline, facts={"psnr_db": decibels}, error=error)


def test_a_peer_that_no_preset_beats_calls_for_a_plan_of_its_fidelity():
    found = [result("peer:DeepCache", 0.5, 30.2), result("turbo4d:balanced", 0.6, 40.0)]
    asked = suite.follow_ups(found, SVD)
    assert [(row.system, row.lowering, row.label) for row in asked] == [
        ("turbo4d:calibrated", "eager", "35 dB")
    ]
    assert asked[0].settings["min_psnr_db"] == 35.0
    assert asked[0].group == "tiny-svd"


@pytest.mark.parametrize(
    ("peer", "ours"),
    [
        ((0.5, 30.0), (0.4, 31.0)),  # beaten in both
        ((0.5, 30.0), (0.5, 30.0)),  # equalled
        ((1.1, 30.0), (2.0, 10.0)),  # slower than the uncached network
        ((0.5, 200.0), (2.0, 10.0)),  # it reused nothing
    ],
)
def test_other_peers_call_for_none(peer, ours):
    found = [result("peer:DeepCache", *peer), result("turbo4d:balanced", *ours)]
    assert suite.follow_ups(found, SVD) == []


def test_a_preset_beats_a_peer_by_the_uncached_runs_of_its_own_rounds():
    found = [
        result("peer:DeepCache", 0.5, 30.0),
        result("turbo4d:balanced", 0.8, 40.0, baseline=(2.0,)),
    ]
    assert suite.follow_ups(found, SVD) == []


def test_each_peer_has_the_lowest_rung_above_it_and_the_most_faithful_exact_alone():
    assert suite._targets([30.2, 33.0, 24.0, 29.4, 29.6]) == [35.0, 30.0, 25.0]
    assert suite._targets([59.4, 59.6, 70.0]) == [60.0]
    assert suite._targets([]) == []


def answers_of(row, folder, *words):
    given = json.dumps({"spec": row.to_json(), "folder": str(folder)})
    found = []
    worker.serve(io.StringIO("\n".join([given, *words]) + "\n"), found.append)
    return found


def test_an_uncached_row_is_its_own_reference(tmp_path):
    row = rows_of("tiny-wan", quick=True)[0]
    found = answers_of(row, tmp_path, "first", "facts")
    assert found[-1]["facts"]["psnr_db"] == 200.0
    assert found[-1]["facts"]["weights"] == "random"
    assert (tmp_path / "tiny-wan-0.safetensors").exists()


def test_a_row_of_turbo4d_runs_in_sessions_of_its_own(tmp_path):
    rows = rows_of("tiny-wan", quick=True)
    row = next(row for row in rows if row.plan == "balanced")
    found = answers_of(row, tmp_path, "first", "run", "facts")
    facts = found[-1]["facts"]
    assert facts["calls_by_variant"]["prologue"] == 2  # one a guidance branch, in each session
    assert sum(facts["calls_by_variant"].values()) == 2 * 20 + 2
    assert 15 < facts["psnr_db"] < 200
    assert 0.05 < facts["operations_share"] < 0.9


def test_a_sample_that_holds_nan_is_no_faithful_one(tmp_path):
    """Its PSNR would be no number, and the least of that and the ceiling is the ceiling."""
    made = case("wan", "tiny")
    job = PeerJob(made, Prepared(lambda *given, **named: None), 0, tmp_path)
    job._latent = torch.full((2,), float("nan"))
    with pytest.raises(JobError, match=r"^the sample holds NaN or infinity, so nothing can be"):
        job.facts()


def test_a_cache_of_diffusers_runs_and_its_operations_are_counted(tmp_path):
    rows = rows_of("tiny-cogvideox", quick=True)
    row = next(row for row in rows if row.label == "TaylorSeer lite")
    facts = answers_of(row, tmp_path, "first", "run", "facts")[-1]["facts"]
    assert 15 < facts["psnr_db"] < 200
    assert 0.1 < facts["operations_share"] < 0.6
    assert facts["note"] == f"{facts['operations_share']:.0%} of the operations"


def test_a_peer_that_reused_nothing_says_why():
    assert share_note(1.0) == "all operations"
    assert share_note(1.0, looks=True).startswith("nothing reused: random weights change")
    assert share_note(0.35, looks=True) == "35% of the operations"


def test_what_tells_most_comes_first():
    groups = [*dict.fromkeys(row.group for row in suite.rows(SuiteOptions()))]
    assert groups[:2] == ["mid-cogvideox", "mid-svd"]
    assert len(groups) == len(suite.CASES)


def test_a_package_that_is_missing_is_named_with_how_to_install_it(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tomesd", None)
    rows = rows_of("tiny-stable_diffusion", quick=True)
    row = next(row for row in rows if row.system == "peer:tomesd")
    with pytest.raises(JobError) as failed:
        suite.prepare(row, tmp_path)
    assert str(failed.value).startswith("the package 'tomesd' does not load here (")
    assert str(failed.value).endswith("; run: pip install tomesd")


@pytest.mark.parametrize("system", ["peer:DeepCache", "peer:tomesd"])
def test_packages_of_others_run_where_they_are_installed(system, tmp_path):
    pytest.importorskip(system.removeprefix("peer:"), reason="a package of others; see extra peers")
    rows = rows_of("tiny-stable_diffusion", quick=True)
    row = next(row for row in rows if row.system == system)
    facts = answers_of(row, tmp_path, "first", "run", "facts")[-1]["facts"]
    assert 15 < facts["psnr_db"] < 200
    assert facts["operations_share"] < 1


def test_a_plan_that_is_kept_is_not_sought_again(tmp_path, monkeypatch):
    from turbo4d.tools.bench.peers import calibrated
    from turbo4d.tools.bench.peers.cases import case

    made = case("wan", "tiny")
    kept = calibrated.plan_file("wan", "tiny", 30.0, tmp_path)
    kept.write_text("kept")
    monkeypatch.setattr(calibrated.Plan, "load", lambda path: path)
    assert calibrated.calibrated(made, 30.0, tmp_path) == kept


def test_a_calibration_that_fails_says_why(tmp_path):
    from turbo4d.tools.bench.peers import calibrated
    from turbo4d.tools.bench.peers.cases import case

    unknown = dataclasses.replace(case("wan", "tiny"), size="huge")
    with pytest.raises(JobError, match=r"^no plan was found: 'huge'"):
        calibrated.calibrated(unknown, 30.0, tmp_path)
