"""The picture of a plan shows what each region does at each step."""

import pytest
from PIL import Image, ImageColor
from turbo4d.runtime.action import Action
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.plan import Plan, RegionInfo
from turbo4d.runtime.plan_text import LETTERS, plan_lines
from turbo4d.tools.plan_picture import MARKS, labels, plan_table, write_plan_png

REUSE, BYPASS = Action.parse("reuse"), Action.parse("bypass")


def region(name, kind, parent):
    return RegionInfo(name, kind, parent, residual=True, slot_bytes=4, flops=1)


REGIONS = (
    region("core", "core", None),
    region("a.chain", "chain", "core"),
    region("a.block", "block", "a.chain"),
    region("b.chain", "chain", "core"),
    region("c.chain", "chain", "core"),
)


def plan(**streams):
    steps = len(next(iter(streams.values())))
    levels = tuple(float(steps - step) for step in range(steps))
    return Plan("mine", "m", Geometry(1, 2, 3, 4, 4), levels, "sigma", streams, 4, 9)


@pytest.fixture
def lines():
    main = ({}, {"a.chain": REUSE, "c.chain": REUSE, "b.chain": BYPASS}, {"core": REUSE})
    return plan_lines(plan(main=main), REGIONS)


def test_lines(lines):
    assert [(label, line.cells) for label, line in zip(labels(lines), lines, strict=True)] == [
        ("core", ("compute", "compute", "reuse")),
        ("2 chains", ("compute", "reuse", "inside")),
        ("b.chain", ("compute", "bypass", "inside")),
        ("a.block", ("compute", "inside", "inside")),
    ]
    assert lines[1].names == ("a.chain", "c.chain")


def test_letters_and_colours_are_of_the_same_cells():
    assert set(MARKS) == set(LETTERS)


def test_streams_are_told_apart():
    two = plan_lines(plan(forward=({}, None), backward=(None, {})), REGIONS)
    assert [line.cells for line in two[::3]] == [("compute", "idle"), ("idle", "compute")]
    assert labels(two)[0] == "forward: core"


def test_png(lines, tmp_path):
    write_plan_png(tmp_path / "plan.png", lines, [1.0, 0.5, 0.0], "title")
    with Image.open(tmp_path / "plan.png") as page:
        colours = {pixel for _, pixel in page.convert("RGB").getcolors(1 << 16) or ()}
    used = {cell for line in lines for cell in line.cells}
    assert {ImageColor.getrgb(MARKS[cell][0]) for cell in used} <= colours
    assert ImageColor.getrgb(MARKS["prune"][0]) not in colours


def test_bars_stand_for_the_operations_of_each_step(lines, tmp_path):
    write_plan_png(tmp_path / "plan.png", lines, [1.0, 0.5, 0.0], "title")
    with Image.open(tmp_path / "plan.png") as page:
        ink = ImageColor.getrgb(MARKS["compute"][0])
        below = 44 + len(lines) * 20  # the lines of the plan end there
        heights = [
            sum(page.getpixel((190 + step * 26 + 10, y)) == ink for y in range(below, below + 70))
            for step in range(3)
        ]
    assert heights == [61, 31, 1]


def test_table(lines):
    text = plan_table(lines)
    assert text.count("<td ") == 12
    assert text.count("<tr>") == 5
    assert "the stream does not run" not in text
