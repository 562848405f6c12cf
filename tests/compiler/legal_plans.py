"""Plans drawn at random among those that can be carried out on a tree of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import strategies as st
from torch import Tensor
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.action import BYPASS, REUSE
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.plan import Plan, RegionInfo
from turbo4d.runtime.variant_key import VariantKey

Rows = list[dict[str, str]]


@st.composite
def legal_rows(
    draw: st.DrawFn, tree: Mapping[str, str | None], exits: set[str], steps: int
) -> Rows:
    """For each step what becomes of the regions that are not computed.

    Args:
        tree: for each region its parent.
        exits: those whose slot holds the exit, so that they cannot be left out.
        steps: how many; the first computes most.
    """
    rows: Rows = []
    written: set[str] = set()
    for step in range(steps):
        wanted = draw(st.lists(st.sampled_from(sorted(tree)), max_size=2 if not step else 6))
        row: dict[str, str] = {}
        for name in wanted:
            choices = [*(["reuse"] if name in written else []), *(["bypass"][: name not in exits])]
            if choices:
                row[name] = draw(st.sampled_from(choices))
        row = {name: action for name, action in row.items() if not _around(name, tree) & set(row)}
        written |= {n for n in tree if n not in row and not _around(n, tree) & set(row)}
        rows.append(row)
    return rows


def _around(name: str, tree: Mapping[str, str | None]) -> set[str]:
    found: set[str] = set()
    outer = tree[name]
    while outer is not None:
        found.add(outer)
        outer = tree[outer]
    return found


def plan_of(rows: Rows, exact: bool = False) -> Plan:
    """The rows as a plan of one stream."""
    actions = {"reuse": REUSE, "bypass": BYPASS}
    named = tuple({name: actions[what] for name, what in row.items()} for row in rows)
    return Plan(
        name="drawn", model="any", geometry=Geometry(1, 1, 1, 1, 1),
        levels=tuple(float(len(rows) - step) for step in range(len(rows))), level_unit="sigma",
        streams={"main": named}, max_age=len(rows), max_variants=len(rows), exact=exact,
    )  # fmt: skip


def keys_of(
    rows: Rows, regions: Sequence[RegionInfo], exact: bool = False
) -> tuple[VariantKey, ...]:
    """The variant of each step; proves that the plan is legal."""
    keys = plan_of(rows, exact).check(regions).keys["main"]
    return tuple(key for key in keys if key is not None)


def run_plan(
    analysis: Analysis, rows: Rows, calls: Sequence[Sequence[Tensor]], exact: bool = False
) -> list[Tensor]:
    """The first output of each step, by specialised graphs with their slots.

    Args:
        analysis: of the model.
        rows: one per step.
        calls: for each step the flat arguments of the graph.
        exact: whether the exact passes are on.
    """
    slots: dict[str, list[Tensor]] = {}
    outputs: list[Tensor] = []
    keys = keys_of(rows, [region.info for region in analysis.regions], exact)
    for key, args in zip(keys, calls, strict=True):
        engine = EagerEngine(specialise(analysis, key))
        assert (set(engine.reads), set(engine.writes)) == (set(key.reads), set(key.writes))
        left = {name: iter(slots[name]) for name in engine.reads}
        held = EagerPrologue(exact_form(analysis).prologue)(args) if exact else ()
        (output,), written = engine(args, held, [next(left[name]) for name in engine.reads])
        assert all(next(rest, None) is None for rest in left.values())
        for name in engine.writes:
            slots[name] = []
        for name, tensor in zip(engine.writes, written, strict=True):
            slots[name].append(tensor)
        outputs.append(output)
    return outputs
