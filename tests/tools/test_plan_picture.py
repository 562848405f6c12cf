"""The picture of a plan shows what each region does at each step."""

import pytest
from PIL import Image, ImageColor
from turbo4d.runtime.action import Action
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.plan import Plan, RegionInfo
from turbo4d.tools.plan_picture import MARKS, plan_lines, plan_table, write_plan_png

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
    assert [(line.label, line.cells) for line in lines] == [
        ("core", ("compute", "compute", "reuse")),
        ("2 chains", ("compute", "reuse", "inside")),
        ("b.chain", ("compute", "bypass", "inside")),
    ]


def test_a_block_shows_where_it_is_named():
    labels = [line.label for line in plan_lines(plan(main=({}, {"a.block": REUSE})), REGIONS)]
    assert labels == ["core", "3 chains", "a.block"]


def test_streams_are_told_apart():
    two = plan(forward=({}, None), backward=(None, {}))
    assert [line.cells for line in plan_lines(two, REGIONS)[::2]] == [
        ("compute", "idle"),
        ("idle", "compute"),
    ]
    assert plan_lines(two, REGIONS)[0].label == "forward: core"


def test_png(lines, tmp_path):
    write_plan_png(tmp_path / "plan.png", lines, "title")
    with Image.open(tmp_path / "plan.png") as page:
        colours = {pixel for _, pixel in page.convert("RGB").getcolors(1 << 16) or ()}
    used = {cell for line in lines for cell in line.cells}
    assert {ImageColor.getrgb(MARKS[cell][0]) for cell in used} <= colours
    assert ImageColor.getrgb(MARKS["prune"][0]) not in colours


def test_table(lines):
    text = plan_table(lines)
    assert text.count("<td ") == 9
    assert text.count("<tr>") == 4
    assert "the stream does not run" not in text
