"""The calibration's page without a browser: self-contained, well formed, complete, escaped."""

import base64
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image
from turbo4d.tools.calibration.page import page
from turbo4d.tools.calibration.page_axes import Axes, Scale, number, scale_of
from turbo4d.tools.calibration.page_heat import colour

from tests.tools.calibration_report import LETTERS, STEPS, sample_images, sample_report

VOID = {"meta", "br", "input"}
HOSTILE = "<script>alert('x')</script>\"&amp;"
PARTS = (
    "drift",
    "gains",
    "predictor",
    "machine",
    "predicted",
    "measured",
    "frontier",
    "calibration",
    "held_out",
    "memory",
    "pareto",
    "psnr_by_view_frame",
    "seconds_spent",
    "target_db",
)


class Reader(HTMLParser):
    """Collects the tags, ids, references and texts of a page, and what was left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        held = dict(attrs)
        self.tags.add(tag)
        self.ids += [held["id"] or ""] if "id" in held else []
        named = [held[key] or "" for key in ("href", "for") if key in held]
        self.references += [each.lstrip("#") for each in named]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def text():
    return page(sample_report(), sample_images())


def drawings(text):
    return [ElementTree.fromstring(each) for each in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def test_self_contained(text):
    assert "http" not in text
    assert "@import" not in text
    assert "src=" not in text
    assert all(start == "data:image/png;base64" for start in re.findall(r"url\(([^,]*),", text))
    assert not {"script", "link", "img", "iframe", "object"} & Reader(text).tags


def test_well_formed(text):
    read = Reader(text)
    assert read.open == []
    assert len(read.ids) == len(set(read.ids))
    assert set(read.references) <= set(read.ids)
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    named = re.sub(r"url\([^)]*\)|:\s*#[0-9a-f]{6}", "", styles)
    assert set(re.findall(r"#([a-z][\w-]*)", named)) <= set(read.ids)


def test_drawings_are_valid_and_stay_within_their_frame(text):
    found = drawings(text)
    assert len(found) > 20
    for drawing in found:
        _, _, width, height = map(float, drawing.attrib["viewBox"].split())
        for each in drawing.iter():
            assert not {"nan", "inf", "None"} & set(
                re.split(r"[\s,()]", " ".join(each.attrib.values()))
            )
            if each.tag == "rect":
                x, y = float(each.attrib["x"]), float(each.attrib["y"])
                right, low = x + float(each.attrib["width"]), y + float(each.attrib["height"])
                assert x >= 0 <= y
                assert right <= width
                assert low <= height


def test_every_axis_is_labelled_with_its_unit(text):
    for label in (
        "latency of one sample (s), logarithmic",
        "PSNR in the object, mean (dB)",
        "PSNR in the object (dB)",
        "predicted PSNR (dB)",
        "measured PSNR (dB)",
        "time of a step (ms)",
        "budget: predicted PSNR at least (dB)",
        "predicted latency (s)",
        "bytes held by slots (MB)",
        "place in the arena (MB)",
        "relative change, no unit",
        "level (sigma)",
        "step",
    ):
        assert f">{label}</text>" in text


def test_the_plan_and_its_variants(text):
    table = text[text.index('<table class="plan">') : text.index("</table>")]
    assert table.count('class="reuse"') == LETTERS.count("K") + LETTERS.count("L")
    assert table.count("<td ") % STEPS == 0
    assert "core: reuse, slot 3 steps old" in table  # step 19, written at 16
    assert "Variants: 5 of at most 8" in text
    assert "<td>1-12, 17-19</td><td>reuse core</td><td>none</td>" in text


def test_what_is_said_of_the_measurement(text):
    read = " ".join(Reader(text).texts)
    for said in (
        "7.10x",
        "speed-up: 920 ms against 6.54 s uncached",
        "rank correlation (Spearman) 0.970",
        "the predicted time is 7 % above the measured",
        "Peak: predicted 3.93 MB, measured 3.93 MB.",
        "These figures are made up for a test.",
        "machine: memory bandwidth",
        "20 GB/s",
    ):
        assert said in read
    assert "not measured" not in read


def test_names_are_escaped():
    report = sample_report()
    report["model"] = report["command"] = report["device"] = HOSTILE
    report["notes"] = [HOSTILE]
    report["plan"]["name"] = report["plan"]["origin"] = HOSTILE
    report["plan"]["streams"] = {HOSTILE: report["plan"]["streams"]["main"]}
    report["letters"] = {HOSTILE: LETTERS}
    report["moves"][0]["name"] = HOSTILE
    report["machine"] = {HOSTILE: HOSTILE}
    report["seconds_spent"] = {HOSTILE: 1.0}
    report["calibration"]["scenes"][0] = HOSTILE
    report["predictor"]["plans"] = HOSTILE
    for row in report["pareto"]:
        row["system"] = row["knob"] = row["letters"] = HOSTILE
    for slot in report["memory"]["slots"]:
        slot["region"] = slot["storage"] = HOSTILE
    for row in report["frontier"]:
        row["letters"] = HOSTILE
    for region in report["regions"]:
        region["name"] += HOSTILE
        region["parent"] = region["parent"] and region["parent"] + HOSTILE
    for row in report["plan"]["streams"][HOSTILE]:
        for name in list(row):
            row[name + HOSTILE] = row.pop(name)
    for part in (report["drift"]["curves"], report["drift"]["matrix"], report["gains"]):
        part[HOSTILE] = part.pop("core")
    text = page(report, sample_images())
    read = Reader(text)
    assert "script" not in read.tags
    assert read.open == []
    assert "<script>" not in text
    assert "&amp;quot;" not in text  # escaped once
    assert f"calibrated plan {HOSTILE} of" in " ".join(read.texts)
    assert drawings(text)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("absent", [True, False])
def test_a_missing_part_is_said_to_be_not_measured(part, absent):
    report = sample_report()
    report[part] = None
    if absent:
        del report[part]
    read = Reader(page(report))
    assert read.open == []
    assert "not measured" in " ".join(read.texts)


def test_what_was_not_asked_or_said():
    report = sample_report()
    del report["worst_slack_db"], report["max_cache_bytes"], report["commit"], report["fidelity"]
    report["memory"]["bound"] = report["frontier"][3]["psnr_mean_db"] = None
    report["model"] = report["plan"]["model"]
    read = " ".join(Reader(page(report, sample_images())).texts)
    for said in ("no bound asked", "No bound was asked.", "not said", "of model ffffffffffff, 20"):
        assert said in read
    assert read.count("not measured") == 1


def test_empty_parts_are_no_error():
    report = sample_report()
    report["frontier"], report["pareto"], report["notes"] = [], [], []
    report["predictor"]["points"] = []
    report["drift"]["curves"] = report["drift"]["matrix"] = report["gains"] = {}
    report["memory"] = {"live_bytes_by_step": [0] * STEPS, "bound": None, "slots": []}
    text = page(report)
    assert "Policies of others and fewer steps: not measured" in text
    drawings(text)


def test_sprites_hold_every_image_exactly():
    images = {name: each.mul(255).round() / 255 for name, each in sample_images(3, 4, 8).items()}
    images["after"][2, 1, 0, 5, 6] = 0.0
    text = page(sample_report(), images)
    sheets = {
        name: Image.open(io.BytesIO(base64.b64decode(data)))
        for name, data in re.findall(
            r"\.(\w+) \{ background-image: url\(data:image/png;base64,([^)]*)", text
        )
    }
    assert sorted(sheets) == ["after", "before", "difference"]
    for name, of in images.items():
        assert sheets[name].size == (4 * 8, 3 * 8)
        for view in range(3):
            for frame in range(4):
                box = (frame * 8, view * 8, frame * 8 + 8, view * 8 + 8)
                got = torch.tensor(list(sheets[name].crop(box).tobytes())).view(8, 8, 3)
                assert torch.equal(got, of[view, frame].mul(255).round().long().permute(1, 2, 0))


def test_large_images_are_shown_smaller():
    images = {name: torch.rand(1, 2, 3, 320, 512) for name in ("before", "after")}
    text = page(sample_report(), images)
    data = re.findall(r"\.before \{ background-image: url\(data:image/png;base64,([^)]*)", text)[0]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (2 * 256, 160)
    assert "shown at 256 pixels" in text


def test_one_frame_of_one_view():
    text = page(sample_report(), sample_images(1, 1))
    assert "animation: frames" not in text
    assert Reader(text).open == []


def test_images_of_two_shapes_are_refused():
    images = {"before": torch.zeros(2, 3, 3, 8, 8), "after": torch.zeros(2, 3, 3, 8, 4)}
    said = (
        "calibration page: images before and after have shapes (2, 3, 3, 8, 8) and "
        "(2, 3, 3, 8, 4); wanted the same [V, F, 3, H, W]."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        page(sample_report(), images)


def test_the_fastest_of_a_system_reaches_the_floor():
    report = sample_report()
    row = {**report["pareto"][0], "letters": ""}
    report["pareto"] = [
        {**row, "system": "a", "knob": knob, "seconds": time, "psnr_mean_db": psnr}
        for knob, time, psnr in (("x", 1.0, 34.9), ("y", 2.0, 35.0), ("z", 3.0, 36.0))
    ]
    assert (
        "<td>a</td><td>1 s (34.9 dB, x)</td><td>1 s (34.9 dB, x)</td><td>2 s (35.0 dB, y)</td>"
        "<td>none</td>"
    ) in page(report)


def test_axes():
    axes = Axes(Scale(0, 10), Scale(1, 100, log=True), "x", "y")
    assert (axes.px(0), axes.px(10)) == (68, 446)
    assert axes.py(10) == (axes.py(1) + axes.py(100)) / 2
    assert axes.px(11) == axes.px(10)
    assert Scale(0, 10).ticks(5) == [0, 2, 4, 6, 8, 10]
    assert Scale(0.001, 100, log=True).ticks() == [0.001, 0.01, 0.1, 1, 10, 100]
    assert scale_of([], log=True).ticks()
    assert scale_of([5.0]).low < 5.0 < scale_of([5.0]).high
    assert [number(value) for value in (0.25, 1200, 1e-5, 0.0, 2.5e6)] == [
        "0.25",
        "1200",
        "10⁻⁵",
        "0",
        "2.5·10⁶",
    ]


def test_heat_colours_brighten_with_the_value():
    parts = [colour(at / 20)[0] for at in range(21)]
    light = [
        0.299 * int(each[1:3], 16) + 0.587 * int(each[3:5], 16) + 0.114 * int(each[5:7], 16)
        for each in parts
    ]
    assert light == sorted(light)


def test_steps_that_are_fitted_share_one_graph():
    report = sample_report()
    rows = report["plan"]["streams"]["main"]
    fits = [{"core": f"reuse(mix=0.{step}1)"} for step in range(1, len(rows))]
    report["plan"]["streams"]["main"] = [{}, *fits]
    report["memory"] = None
    text = page(report)
    assert "Variants: 2 of at most 8" in text
    assert "reuse core by fitted weights" in text
