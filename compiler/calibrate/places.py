"""places: the frontier of a table under limits, over all storages that may serve."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from turbo4d.compiler.calibrate.error_table import ErrorTable
from turbo4d.compiler.calibrate.fidelity import amplitude
from turbo4d.compiler.calibrate.frontier import GRID_DB, Place, settle
from turbo4d.compiler.calibrate.search import VERSION, Found, Limits, Search
from turbo4d.compiler.calibrate.state import State, key
from turbo4d.compiler.calibrate.table_file import to_json
from turbo4d.runtime.region_info import RegionInfo, bytes_of

Say = Callable[[float, str], None]


def places_of(
    table: ErrorTable,
    seconds: Mapping[str, float],
    limits: Limits,
    regions: Sequence[RegionInfo],
    state: State,
    say: Say,
    grid: Sequence[float] | None = None,
) -> tuple[Place, ...]:
    """The fastest plan for each budget, and last the one that computes everything.

    Slots are kept in the compute dtype, and where their bytes are bounded also in every smaller
    storage that was measured; of each budget's plans the fastest stays.

    Args:
        table: of errors.
        seconds: per move.
        limits: of the plans.
        regions: of the model.
        state: where the places are kept as they are found.
        say: told the share that is done, and what is being done.
        grid: of budgets in dB, rising; None for GRID_DB.
    """
    grid = GRID_DB if grid is None else grid
    storages = ("compute",)
    if limits.max_cache_bytes is not None:
        storages += measured_storages(table)
    by_budget: list[list[Place]] = [[] for _ in grid]
    everything: list[Place] = []
    for index, storage in enumerate(storages):
        search = Search(table, seconds, limits, regions, storage, sizes(regions, storage))

        def note(share: float, what: str, index: int = index) -> None:
            say((index + share) / len(storages), what)

        for of, place in zip(by_budget, _frontier(search, state, note, grid), strict=True):
            of.append(place)
        everything.append(Place(math.inf, search.everything()))
    fastest = [min(of, key=lambda place: place.found.seconds) for of in by_budget]
    return settle([*fastest, everything[0]])


def measured_storages(table: ErrorTable) -> tuple[str, ...]:
    """The storages, other than the compute dtype, whose error is known in every stream."""
    known = [set(of.rounding) for of in table.measured.values()]
    return tuple(sorted(name for name in known[0] if all(name in each for each in known)))


def sizes(regions: Sequence[RegionInfo], storage: str) -> dict[str, int]:
    """Per region what one value of its slot holds, kept so."""
    by_name = {region.name: region for region in regions}
    return {name: bytes_of(name, by_name, {name: storage}) for name in by_name}


def _frontier(search: Search, state: State, say: Say, grid: Sequence[float]) -> list[Place]:
    """Plans for each budget of the grid, from the loosest on.

    A proven plan that also keeps a tighter budget is the fastest there too, and is not sought
    again.
    """
    depends = key(
        VERSION,
        to_json(search.table),
        dict(search.seconds),
        asdict(search.limits),
        search.storage,
        dict(search.size_bytes or {}),
    )
    found = search.everything()
    places: list[Place] = []
    for index, budget_db in enumerate(grid):
        say(index / len(grid), f"searching a plan for {budget_db:g} dB, slots in {search.storage}")
        if not places or not found.proven or found.error > amplitude(budget_db):
            free = search.free(amplitude(budget_db))
            found = free or _kept(search, state, f"plan {depends} {budget_db:g}", budget_db)
        places.append(Place(budget_db, found))
    return places


def _kept(search: Search, state: State, name: str, budget_db: float) -> Found:
    """What the solver finds, which takes long enough to be kept."""
    kept = state.once(name, partial(_sought, search, budget_db))
    steps = {
        stream: tuple((move, order) for move, order in taken)
        for stream, taken in kept["steps"].items()
    }
    return search.found(steps, kept["error"], proven=kept["proven"])


def _sought(search: Search, budget_db: float) -> dict[str, Any]:
    everything = search.everything()
    found = search.within(amplitude(budget_db), everything.steps) or everything
    return {"steps": found.steps, "error": found.error, "proven": found.proven}
