"""The README's pictures: what beats nothing is not drawn, and every system has its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from turbo4d.tools.readme_pictures import draw_pareto


def row(system: str, speedup: float, psnr: float, seconds: float | None = 1.0) -> dict[str, Any]:
    timed = None if seconds is None else seconds / speedup
    return {"system": system, "speedup": speedup, "psnr_mean_db": psnr, "seconds": timed}


def drawn(path: Path, rows: list[dict[str, Any]]) -> bytes:
    draw_pareto({"pareto": rows}, path)
    with Image.open(path) as picture:
        assert min(picture.size) > 600
        return picture.tobytes()


def test_a_picture_is_of_what_was_timed_and_not_beaten(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws the picture")
    kept = [row("turbo4d", 9, 35), row("turbo4d", 5, 41), row("DeepCache", 3, 38)]
    lost = [row("turbo4d", 4, 40), row("DeepCache", 2, 30), row("DeepCache", 8, 90, None)]
    picture = drawn(tmp_path / "kept.png", kept)
    assert drawn(tmp_path / "all.png", [*lost, *kept]) == picture
    assert drawn(tmp_path / "more.png", [*kept, row("DeepCache", 4, 36)]) != picture
