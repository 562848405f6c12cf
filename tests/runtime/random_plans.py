"""Random plans that are legal, on a tree of regions."""

from __future__ import annotations

from hypothesis import strategies as st
from turbo4d.runtime.action import COMPUTE, Action
from turbo4d.runtime.plan import Plan, RegionInfo, VariantKey
from turbo4d.runtime.plan_check import PlanCheck

from tests.runtime.fake import GEOMETRY

# Two levels deep, with a region that no other holds, and slots of different sizes. Two regions can
# be pruned, by the relevance that one of them writes.
TREE = (
    RegionInfo("core", "core", None, residual=False, slot_bytes=1000, flops=1),
    RegionInfo("a.chain", "chain", "core", residual=True, slot_bytes=100, flops=1),
    RegionInfo(
        "a.chain.camera",
        "block",
        "a.chain",
        residual=True,
        slot_bytes=10,
        flops=1,
        relevance="b.chain",
        relevance_bytes=5,
        prunable_flops=1,
    ),
    RegionInfo(
        "b.chain",
        "chain",
        "core",
        residual=True,
        slot_bytes=200,
        flops=1,
        relevance="b.chain",
        relevance_bytes=5,
        prunable_flops=1,
    ),
    RegionInfo("lone.chain", "chain", None, residual=True, slot_bytes=1, flops=1),
)
PARENT = {region.name: region.parent for region in TREE}
RELEVANCE = {region.name: region.relevance for region in TREE}
# Of every slot there can be.
SLOTS = {**{region.name: region.slot_bytes for region in TREE}, "b.chain.relevance": 5}


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
def legal_rows(draw, max_age: int, max_order: int = 0, *, prune: bool = True):
    rows: list[dict[str, Action]] = []
    computed: dict[str, list[int]] = {region.name: [] for region in TREE}
    for step in range(draw(st.integers(1, 12))):
        row: dict[str, Action] = {}
        for region in TREE:
            name = region.name
            if any(holder in row for holder in holders(name)):
                continue
            choices = ["compute"]
            past = computed[name]
            if past and step - past[-1] <= max_age:
                choices.append("reuse")
                source = RELEVANCE[name] if prune else None
                if source and any(step - max_age <= at < step for at in computed[source]):
                    choices.append("prune(0.25)")
                choices += [f"reuse({n})" for n in range(1, max_order + 1) if n < len(past)]
            if region.residual:
                choices.append("bypass")
            action = Action.parse(draw(st.sampled_from(choices)))
            if action == COMPUTE:
                past.append(step)
            else:
                row[name] = action
        rows.append(row)
    return rows
