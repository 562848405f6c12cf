"""`turbo4d explain`: the file's schema, the pictures, and what it refuses."""

import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image
from turbo4d.tools.cli import main

from tests.tools.test_cli import refused

HERE = "tests.tools.networks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """explain's three files for one small network, each from its own call."""
    out = tmp_path_factory.mktemp("explain")
    for suffix in ("json", "png", "html"):
        words = ["explain", "--model", f"{HERE}:multi_view", "--steps", "6", "--regions", "core"]
        assert main([*words, "--out", str(out / f"x.{suffix}")]) == 0
    return out


def test_json_has_the_contract_fields(folder):
    found = json.loads((folder / "x.json").read_text())
    assert found["model"] == f"{HERE}:multi_view"
    assert found["geometry"] == {"batch": 2, "views": 3, "frames": 2, "height": 8, "width": 8}
    assert {site["kind"] for site in found["sites"]} == {"spatial", "camera", "motion", "cross"}
    assert set(found["sites"][0]) == {
        "name", "kind", "region", "query_tokens", "key_tokens", "heads", "groups",
    }  # fmt: skip
    assert set(found["regions"][0]) == {"name", "kind", "parent", "flops", "slot_bytes"}
    assert sum(found["flops_by_kind"].values()) == found["flops_per_call"] > 0
    assert found["params"] > 0
    assert found["folded_sites"] >= 0
    assert found["unclassified"] == []
    plan = found["plan"]
    assert {"name", "steps", "variants", "flops_by_step", "cache_peak_bytes"} <= set(plan)
    assert (plan["name"], plan["steps"], len(plan["flops_by_step"])) == ("balanced", 6, 6)
    # No step exceeds a call; a step that reuses the core does hardly anything.
    assert 0 < min(plan["flops_by_step"]) < max(plan["flops_by_step"]) <= found["flops_per_call"]
    assert set(found["prologue"]) == {"flops", "bytes", "values"}


def test_png_has_a_column_per_step(folder):
    with Image.open(folder / "x.png") as page:
        row = page.convert("RGB").crop((190, 50, 190 + 6 * 26, 51))
        colours = {row.getpixel((step * 26 + 4, 0)) for step in range(6)}
    assert (0x1F, 0x4E, 0x79) in colours  # step 0 computes
    assert (0x9E, 0xCA, 0xE1) in colours  # a later one reuses the core


def test_html_is_self_contained(folder):
    page = (folder / "x.html").read_text()
    table = page[page.index('<table class="plan">') : page.index("</table>")]
    assert table.count("<td ") % 6 == 0 < table.count("<td ")
    assert "http" not in page
    assert "url(" not in page
    assert "<script" not in page
    assert page.rstrip().endswith("</html>")
    reader = Nesting()
    reader.feed(page)
    assert reader.open == []
    for title in ("Plan", "Operations of a step", "Regions: 1 step", "Sites: 1 spatial", "Exact"):
        assert f"<h2>{title}" in page


class Nesting(HTMLParser):
    """Every tag that opens closes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_text_names_the_sites_and_the_steps(capsys):
    words = ["explain", "--model", f"{HERE}:multi_view", "--steps", "3", "--regions", "core"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "1 spatial" in text
    # This preset computes both; they share a line where both are predicted to take as long.
    assert re.search(r"  steps? (0, )?2 +99\.\d%", text)
    assert "once per run (prologue)" in text
    assert "dead weights: none" in text
    assert len(text.splitlines()) < 60


def test_two_plans_are_compared(capsys):
    words = ["explain", "--model", f"{HERE}:multi_view", "--steps", "3", "--regions", "core"]
    assert main([*words, "--plan", "balanced", "--against", "exact"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("from plan exact to plan balanced:\n  name: exact -> balanced\n")
    assert "  stream main step 1 core: compute -> reuse\n" in text
    assert main([*words, "--against", "balanced", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["diff"] == []
    assert found["plan"]["steps"] == 3
    status, got = refused(capsys, *words, "--against", "balance")
    assert (status, got) == (
        2,
        "--against 'balance' is unknown (did you mean 'balanced'?); choose 'balanced', 'exact', "
        "'fast', 'none', 'quality'.",
    )


REFUSED = {
    "no sites": (
        ["--model", f"{HERE}:convolution"],
        1,
        "no attention depends on the sample 'x'; the graph has 0 attentions in ",
    ),
    "ambiguous geometry": (
        ["--model", f"{HERE}:ambiguous"],
        2,
        "geometry: the 12 images of a call may be ",
    ),
    "geometry against the graph": (
        ["--model", f"{HERE}:ambiguous", "--geometry", "views=5"],
        2,
        "geometry: views=5 does not fit the sample 'x' of 12 images",
    ),
    "no inputs": (
        ["--model", f"{HERE}:without_inputs"],
        2,
        f"--model '{HERE}:without_inputs' made a Linear, whose inputs are not known; give it a "
        "method turbo4d_inputs() that returns the positional and the keyword arguments of one "
        "call.",
    ),
    "wrong inputs": (
        ["--model", f"{HERE}:mistaken"],
        2,
        f"--model '{HERE}:mistaken': turbo4d_inputs() returned a Tensor; wanted a pair, the "
        "positional arguments and a dict of keyword arguments.",
    ),
    "no module": (
        ["--model", f"{HERE}:tensor"],
        2,
        f"--model '{HERE}:tensor' made a Tensor; wanted an nn.Module.",
    ),
    "no factory": (
        ["--model", f"{HERE}:nothing"],
        2,
        f"--model '{HERE}:nothing': '{HERE}' has no 'nothing'.",
    ),
    "a factory that fails": (
        ["--model", "os.path:join"],
        2,
        "--model 'os.path:join' failed: TypeError: join() missing 1 required positional argument: "
        "'a'; --debug shows where.",
    ),
    "a relative package": (
        ["--model", "..:x"],
        2,
        "--model '..:x': '..' cannot be imported (the 'package' argument is required to perform a "
        "relative import for '..'); write package.module:factory and put its folder on PYTHONPATH.",
    ),
    "no package": (
        ["--model", "nowhere:f"],
        2,
        "--model 'nowhere:f': 'nowhere' cannot be imported (No module named 'nowhere'); write "
        "package.module:factory and put its folder on PYTHONPATH.",
    ),
    "no such kind of region": (
        ["--model", f"{HERE}:multi_view", "--regions", "level"],
        2,
        "kind 'level': the model has no such region; it has ",
    ),
    "checkpoint of another class": (
        ["--model", f"{HERE}:multi_view", "--checkpoint", "x.safetensors"],
        2,
        f"--checkpoint is read into an SV4DUNet, and --model '{HERE}:multi_view' made a "
        "MultiViewNet; leave it out, explain needs no weights.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case, capsys, tmp_path):
    words, wanted, sentence = REFUSED[case]
    out = tmp_path / "x.json"
    status, got = refused(capsys, "explain", *words, "--out", out)
    assert got.startswith(sentence)
    assert got.endswith(".")
    assert status == wanted
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_another_model(capsys, tmp_path):
    plan = tmp_path / "plan.json"
    found = {
        "schema_version": 1, "name": "mine", "model": "another", "levels": [3.0, 1.0],
        "level_unit": "sigma", "streams": {"main": [{}, {}]}, "max_age": 1, "max_variants": 1,
        "max_cache_bytes": None, "error_budget_db": None, "exact": True,
        "geometry": {"batch": 2, "views": 3, "frames": 2, "height": 8, "width": 8},
    }  # fmt: skip
    plan.write_text(json.dumps(found))
    words = ["explain", "--model", f"{HERE}:multi_view", "--steps", "2", "--plan", plan]
    status, got = refused(capsys, *words)
    assert status == 2
    assert got.startswith("plan 'mine' is for model 'another'; this one is '")
    plan.write_text(json.dumps({**found, "levels": [1.0, 3.0]}))
    status, got = refused(capsys, *words)
    assert (status, got.split(": ")[0]) == (2, str(plan))
    plan.write_text("{")
    status, got = refused(capsys, *words)
    assert status == 2
    assert got.startswith(f"{plan}: plan file: line 1 is no JSON: ")
