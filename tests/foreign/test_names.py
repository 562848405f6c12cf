"""What is found in a foreign model depends on nothing that it is called by."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torch import nn

pytest.importorskip("diffusers")

from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import GeometryError
from turbo4d.tools import cli
from turbo4d.tools.foreign_models import build


def renamed(module: nn.Module) -> None:
    """Give a module, and all in it, another class and its parts other names."""
    kind = type(module)
    lists = isinstance(module, nn.ModuleList)
    members: dict[str, Any] = {}
    for table in ("_modules", "_parameters", "_buffers"):
        old = getattr(module, table)
        names = {name: name if lists else f"{table[1]}{number}" for number, name in enumerate(old)}
        setattr(module, table, {names[name]: value for name, value in old.items()})
        for name, new in names.items():
            if name != new:
                members[name] = property(lambda self, t=table, n=new: self.__dict__[t][n])
    module.__class__ = type("Part", (kind,), members)
    for child in module.children():
        renamed(child)


def findings(analysis: Analysis) -> list[tuple[object, ...]]:
    sites = [(s.name, s.kind, s.region, s.query_tokens, s.key_tokens) for s in analysis.sites]
    return [*sites, *((r.name, r.kind, r.parent, r.flops) for r in analysis.regions)]


@pytest.mark.parametrize("name", ["latte", "cogvideox", "stable_diffusion"])
def test_other_names_of_classes_and_parts_change_nothing(name: str) -> None:
    foreign = build(name)
    geometry = dict(foreign.geometry)
    before = analyse(capture_export(foreign.module, (), foreign.inputs), geometry)
    renamed(foreign.module)
    assert {type(module).__name__ for module in foreign.module.modules()} == {"Part"}
    after = analyse(capture_export(foreign.module, (), foreign.inputs), geometry)
    weights = {row.target for row in before.capture.table if row.kind == "weight"}
    assert not weights & {row.target for row in after.capture.table}
    assert findings(after) == findings(before)


@pytest.mark.parametrize(
    ("geometry", "text"),
    [
        (
            {"batch": 3},
            "geometry: batch=3 does not fit the sample 'hidden_states' of 2 images. "
            "Correct the geometry option.",
        ),
    ],
)
def test_a_geometry_that_does_not_divide_the_batch_axis(
    geometry: dict[str, int], text: str
) -> None:
    foreign = build("latte")
    capture = capture_export(foreign.module, (), foreign.inputs)
    with pytest.raises(GeometryError) as caught:
        analyse(capture, geometry)
    assert str(caught.value) == text


def test_explain_takes_a_factory(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", "--model", "turbo4d.tools.foreign_models:latte", "--json"]
    assert cli.main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert [site["kind"] for site in found["sites"]] == ["spatial", "cross", "motion"] * 3
    assert found["unclassified"] == []
