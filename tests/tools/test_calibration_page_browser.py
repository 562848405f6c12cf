"""The calibration's page in a headless Chromium: it moves, it fits, it can be read, it prints."""

import io
import itertools
import time

import pytest
from PIL import Image
from turbo4d.tools.calibration.page import page

from tests.tools.browser import browser, chromium
from tests.tools.calibration_report import sample_images, sample_report

FOUND = chromium()
pytestmark = pytest.mark.skipif(FOUND is None, reason="no Chromium is installed here")

WIDTHS = (1280, 390)  # a desktop and a phone
AT = "getComputedStyle(document.querySelector('.tile.{}')).backgroundPositionX"
# Every text of every drawing: its words and its box.
TEXTS = """[...document.querySelectorAll('figure > svg, figure > div > svg')].map(svg => {
  const frame = svg.getBoundingClientRect();
  const scale = frame.width / svg.viewBox.baseVal.width;
  return {title: svg.getAttribute('aria-label'),
    frame: [frame.left, frame.top, frame.right, frame.bottom],
    texts: [...svg.querySelectorAll('text')].map(text => {
      const box = text.getBoundingClientRect();
      return [text.textContent, box.left, box.top, box.right, box.bottom,
              parseFloat(getComputedStyle(text).fontSize) * scale];
    })}; })"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "plan.html"
    path.write_text(page(sample_report(), sample_images()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(str(FOUND), tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def click(tab, name):
    tab.run(f"document.querySelector('label[for={name}]').click()")


def images(tab, selector):
    return Image.open(io.BytesIO(tab.screenshot(selector))).convert("RGB")


@pytest.mark.parametrize("width", WIDTHS)
def test_it_asks_for_nothing_and_complains_of_nothing(tab, file, width):
    tab.open(file, width=width)
    outside = [each for each in tab.requests if not each.startswith("data:image/png;")]
    assert outside == [file.as_uri()]
    assert tab.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(tab, file, width):
    tab.open(file, width=width)
    assert tab.run("innerWidth") == width
    assert tab.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_texts_of_drawings_can_be_read(tab, file, width):
    tab.open(file, width=width)
    found = tab.run(TEXTS)
    assert len(found) > 12
    for drawing in found:
        left, top, right, low = drawing["frame"]
        for text in drawing["texts"]:
            assert text[5] >= 8, (drawing["title"], text)
            assert left - 1 <= text[1] < text[3] <= right + 1, (drawing["title"], text)
            assert top - 1 <= text[2] < text[4] <= low + 1, (drawing["title"], text)
        for one, two in itertools.combinations(drawing["texts"], 2):
            apart_x = one[3] <= two[1] + 1 or two[3] <= one[1] + 1
            apart_y = one[4] <= two[2] + 3 or two[4] <= one[2] + 3  # a box is taller than its ink
            assert apart_x or apart_y, (drawing["title"], one, two)


def test_long_names_and_missing_parts_fit_a_phone(tab, tmp_path):
    report = sample_report()
    for part in ("pareto", "measured", "held_out", "predictor", "psnr_by_view_frame", "memory"):
        report[part] = None
    report["model"] = report["plan"]["model"] = report["plan"]["name"] = 64 * "f"
    report["command"] = report["notes"][0] = 40 * "word-" + " " + 300 * "w"
    path = tmp_path / "plan.html"
    path.write_text(page(report), encoding="utf-8")
    tab.open(path, width=390)
    assert tab.run("document.documentElement.scrollWidth") <= 390


def luminance(colour):
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_words_stand_out_in_light_and_dark(tab, file, dark):
    tab.open(file, dark=dark)
    paper = luminance(tab.run("getComputedStyle(document.body).backgroundColor"))
    assert (paper < 0.1) == dark
    for selector, style in (
        ("body", "color"),
        ("figcaption", "color"),
        ("svg .words text", "fill"),
        (".c0 .line", "stroke"),
        (".c1 .line", "stroke"),
        (".ours .line", "stroke"),
    ):
        ink = luminance(tab.run(f"getComputedStyle(document.querySelector('{selector}')).{style}"))
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= (3 if selector.endswith("line") else 4.5), (selector, contrast)


def test_the_asset_moves_and_stops(tab, file):
    tab.open(file)
    tab.run("document.querySelector('.stage').scrollIntoView()")

    def places(count):
        found = []
        for _ in range(count):
            found.append(tab.run(f"[{AT.format('before')}, {AT.format('after')}]"))
            time.sleep(0.07)
        return found

    moving = places(12)
    assert all(before == after for before, after in moving)  # both show the same frame
    assert len({before for before, _ in moving}) >= 3
    click(tab, "pause")
    time.sleep(0.3)  # the frame that was due when it was clicked may still come
    assert len({tuple(each) for each in places(4)}) == 1
    first = images(tab, ".stage")
    click(tab, "play")
    assert len({tuple(each) for each in places(8)}) > 1
    click(tab, "frame-4")
    assert images(tab, ".stage").tobytes() != first.tobytes()


def test_a_frame_is_shown_as_it_is(tab, file):
    tab.open(file)
    shown = sample_images()
    for frame, view in ((0, 0), (3, 2)):
        click(tab, f"frame-{frame}")
        for name in ("before", "after"):
            tile = images(tab, f".tile.{name}.v{view}")
            whole = shown[name][view, frame].mul(255).round().byte()
            for row, column in ((1, 1), (7, 2 * frame + view + 1), (14, 14), (7, 13)):
                at = ((column + 0.5) / 16 * tile.width, (row + 0.5) / 16 * tile.height)
                pixel = tile.getpixel((int(at[0]), int(at[1])))
                assert pixel == tuple(whole[:, row, column].tolist()), (name, frame, row, column)


def test_one_view_is_shown_alone_and_larger(tab, file):
    tab.open(file)
    rows = "[...document.querySelectorAll('.stage .row')].map(row => row.offsetHeight > 0)"
    wide = "document.querySelector('.tile.v2').offsetWidth"
    assert tab.run(rows) == [True] * 5
    before = tab.run(wide)
    click(tab, "view-2")
    assert tab.run(rows) == [True, False, False, True, False]
    assert tab.run(wide) > before
    click(tab, "view-all")
    assert tab.run(rows) == [True] * 5


def test_links_lead_to_their_sections(tab, file):
    tab.open(file)
    tab.run("document.querySelector('nav a[href=\"#memory\"]').click()")
    assert -1 <= tab.run("document.getElementById('memory').getBoundingClientRect().top") < 900


def test_the_legend_singles_out_a_system(tab, file):
    tab.open(file)
    series = "[...document.querySelectorAll('.pareto svg .series')]"
    shown = f"{series}.map(each => getComputedStyle(each).opacity)"
    assert set(tab.run(shown)) == {"1"}
    tab.run("document.querySelector('.pareto .key .s3').focus()")
    assert sorted(set(tab.run(shown))) == ["0.15", "1"]


def test_it_prints_still_images_on_white(tab, file):
    tab.open(file, dark=True)
    tab.send("Emulation.setEmulatedMedia", media="print")
    height = "document.querySelector('{}').offsetHeight"
    assert tab.run(height.format(".stage")) == 0
    assert tab.run(height.format(".sheet.after")) > 100
    assert luminance(tab.run("getComputedStyle(document.body).backgroundColor")) == 1.0
    assert len(tab.send("Page.printToPDF", printBackground=True)["data"]) > 10_000
