"""The text table and the pictures say what the rows hold."""

from PIL import Image
from turbo4d.tools.bench import plot, soak_picture
from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.bench.table import told

BLUE = (32, 104, 168)


def report(*rows):
    machine = {"device": "a machine", "threads": 2, "torch": "2.13.0"}
    return {"machine": machine, "rows": [row.to_json() for row in rows]}


def row(system, seconds, facts=None, error=None):
    spec = RowSpec("cpu", "20-steps", system, lowering="eager")
    return RowResult(spec, seconds, (8.0,), 9.0, 0, 2_000_000, facts or {}, error)


def test_the_table_has_a_line_for_each_row():
    facts = {"psnr_mask_db": 37.12, "ssim": 0.99876}
    lines = told(
        report(
            row("turbo4d:fast", (1.0, 2.0, 4.0), facts),
            row("turbo4d:none", (8.0,), {"psnr_mask_db": 200.0}),
            row("peer:x", (), error="x is not installed."),
        )
    ).splitlines()
    assert lines[0] == "20-steps"
    assert lines[2].split() == (
        "turbo4d:fast eager 2 s (1 to 4) 4.00x 37.1 dB 0.9988 7.0 s 2 MB".split()
    )
    assert "every bit" in lines[3]
    assert lines[4].endswith("x is not installed.")
    assert lines[-1] == "a machine, 2 threads, torch 2.13.0"


def test_a_bar_is_as_long_as_its_row_is_fast(tmp_path):
    rows = [row("eager", (8.0,)), row("turbo4d:a", (2.0,)), row("turbo4d:b", (4.0,))]
    rows.append(row("turbo4d:c", (), error="it broke."))
    plot.draw(report(*rows), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as page:
        lengths = [
            sum(page.getpixel((x, y)) == BLUE for x in range(page.width))
            for y in range(page.height)
        ]
    bars = [one for one, before in zip(lengths[1:], lengths, strict=False) if one and not before]
    assert len(bars) == 2
    assert abs(bars[0] - 2 * bars[1]) <= 2


def test_the_soaks_curve_is_drawn(tmp_path):
    facts = {"resident_bytes": [100, 110, 120, 120, 121] * 4, "note": "flat"}
    soak_picture.draw(report(row("turbo4d:balanced", (1.0,), facts)), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as page:
        drawn = sum(
            page.getpixel((x, y)) == BLUE for x in range(page.width) for y in range(page.height)
        )
    assert drawn > 500
    soak_picture.draw(report(row("turbo4d:x", (), error="it broke.")), tmp_path / "y.png")
    assert (tmp_path / "y.png").stat().st_size > 0
