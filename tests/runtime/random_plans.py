"""Random plans that are legal, on a tree of regions."""

from __future__ import annotations

from hypothesis import strategies as st
from turbo4d.runtime.action import COMPUTE, Action
from turbo4d.runtime.plan import Plan, RegionInfo, VariantKey
from turbo4d.runtime.plan_check import PlanCheck

from tests.runtime.fake import GEOMETRY

# Two levels deep, with a region that no other holds, and slots of different sizes.
TREE = (
    RegionInfo("core", "core", None, residual=False, slot_bytes=1000, flops=1),
    RegionInfo("a.chain", "chain", "core", residual=True, slot_bytes=100, flops=1),
    RegionInfo("a.chain.camera", "block", "a.chain", residual=True, slot_bytes=10, flops=1),
    RegionInfo("b.chain", "chain", "core", residual=True, slot_bytes=200, flops=1),
    RegionInfo("lone.chain", "chain", None, residual=True, slot_bytes=1, flops=1),
)
PARENT = {region.name: region.parent for region in TREE}


def holders(name: str) -> list[str]:
    found, outer = [], PARENT[name]
    while outer is not None:
        found.append(outer)
        outer = PARENT[outer]
    return found


def plan(rows, max_age) -> Plan:
    levels = tuple(float(len(rows) - step) for step in range(len(rows)))
    return Plan(
        "p", "abc", GEOMETRY, levels, "sigma", {"main": tuple(rows)}, max_age, max_variants=99
    )


def keys_of(proof: PlanCheck) -> list[VariantKey]:
    """Of the main stream of a plan that runs it at every step."""
    keys = [key for key in proof.keys["main"] if key is not None]
    assert len(keys) == len(proof.keys["main"])
    return keys


@st.composite
def legal_rows(draw, max_age: int):
    rows: list[dict[str, Action]] = []
    last: dict[str, int] = {}
    for step in range(draw(st.integers(1, 12))):
        row: dict[str, Action] = {}
        for region in TREE:
            name = region.name
            if any(holder in row for holder in holders(name)):
                continue
            choices = ["compute"]
            if name in last and step - last[name] <= max_age:
                choices += ["reuse", "prune(0.25)"]
            if region.residual:
                choices.append("bypass")
            action = Action.parse(draw(st.sampled_from(choices)))
            if action == COMPUTE:
                last[name] = step
            else:
                row[name] = action
        rows.append(row)
    return rows
