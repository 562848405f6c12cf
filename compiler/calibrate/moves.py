"""What a step may do: the moves that a search chooses from, read off any model's regions.

A move is one kind of row. It names whole groups of regions, whose slots are written and read
together, so that a plan over moves stays small enough to be searched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from turbo4d.compiler.errors import CalibrationError
from turbo4d.runtime.action import BYPASS, REUSE, Action
from turbo4d.runtime.region_info import RegionInfo, RegionKind

ORDERS = (0, 1, 2)  # of reuse
FIT_ORDERS = (0, 1)  # of fitted reuse of the whole step: it mixes one value more
KEEPS = (0.5, 0.25)  # of prune, the share of tokens or groups that is computed
_BLOCKS = "blocks."
_BLOCK_LETTERS = {"spatial": "s", "camera": "a", "motion": "m"}
_LEVEL_LETTERS = "LMNOPQ"


@dataclass(frozen=True)
class Group:
    """Regions whose slots are always written and read together.

    Args:
        name: "step", "core", a level's own name, "chains", or "blocks." and a kind of attention.
        kind: of the regions.
        regions: their names.
    """

    name: str
    kind: RegionKind
    regions: tuple[str, ...]


@dataclass(frozen=True)
class Move:
    """One kind of row.

    Args:
        name: "compute", a group's name without "blocks.", "prune0.5.camera", "bypass".
        letter: one character, for pictures; all prunes share one.
        actions: region -> action, of order 0; what is not named computes.
        groups: names of the groups whose slots it reads.
        executed: names of the groups that it executes in full, so that it may write their slots.
        orders: that its reuse may take.
        fitted: whether a plan gives it weights, which are found once the plan is known.
    """

    name: str
    letter: str
    actions: Mapping[str, Action]
    groups: tuple[str, ...]
    executed: tuple[str, ...]
    orders: tuple[int, ...] = (0,)
    fitted: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "actions", dict(sorted(self.actions.items())))


def groups_of(regions: Sequence[RegionInfo]) -> tuple[Group, ...]:
    """The groups of a model, the outermost kinds first.

    Args:
        regions: of the model.
    """
    named: dict[str, list[RegionInfo]] = {}
    for region in regions:
        named.setdefault(_group_name(region), []).append(region)
    ranks = ("step", "core", "level", "chain", "block")
    groups = [
        Group(name, of[0].kind, tuple(region.name for region in of)) for name, of in named.items()
    ]
    return tuple(sorted(groups, key=lambda group: ranks.index(group.kind)))


def moves_of(
    regions: Sequence[RegionInfo],
    groups: Sequence[Group],
    *,
    use: Collection[str] | None = None,
) -> tuple[Move, ...]:
    """All moves of a model: compute; reuse and prune of each group; bypass of the chains.

    Args:
        regions: of the model.
        groups: of the model.
        use: names of the moves to give, None for all; "compute" is always given.

    Raises:
        CalibrationError: where `use` names a move that the model has not.
    """
    by_name = {region.name: region for region in regions}
    found = [_move("compute", "C", {}, (), groups, by_name)]
    levels = iter(_LEVEL_LETTERS)
    for group in groups:
        if group.kind == "step":
            found.append(_fitted(group, groups, by_name))
            continue
        short = group.name.removeprefix(_BLOCKS)
        letter = _letter(group, next(levels, "Z") if group.kind == "level" else "")
        actions = dict.fromkeys(group.regions, REUSE)
        found.append(_move(short, letter, actions, (group.name,), groups, by_name, ORDERS))
    for group in groups:
        prunable = [name for name in group.regions if by_name[name].relevance is not None]
        for keep in KEEPS if prunable else ():
            name = f"prune{keep:g}.{group.name.removeprefix(_BLOCKS)}"
            actions = dict.fromkeys(prunable, Action("prune", keep=keep))
            found.append(_move(name, "p", actions, (group.name,), groups, by_name))
    chains = [r.name for r in regions if r.kind == "chain" and r.residual]
    if chains:
        found.append(_move("bypass", "x", dict.fromkeys(chains, BYPASS), (), groups, by_name))
    return _used(found, use)


def row(move: Move, order: int = 0) -> dict[str, Action]:
    """The row of a plan that a move stands for.

    Args:
        move: any.
        order: of its reuse.

    Raises:
        CalibrationError: where the move does not take the order.
    """
    if order not in move.orders:
        raise CalibrationError(
            f"move {move.name!r} is wanted with order {order}; it takes "
            f"{', '.join(map(str, move.orders))}."
        )
    if not order:
        return dict(move.actions)
    return {name: Action("reuse", order=order) for name in move.actions}


def gain_name(move: str, order: int) -> str:
    """Under which a table keeps the gains of a move's order: "core", "core:1"."""
    return f"{move}:{order}" if order else move


def executed(
    actions: Mapping[str, Action], groups: Sequence[Group], regions: Mapping[str, RegionInfo]
) -> tuple[str, ...]:
    """Names of the groups of which a row executes every region in full.

    Args:
        actions: of the row.
        groups: to choose from.
        regions: by name.
    """
    return tuple(
        group.name
        for group in groups
        if not any(skipped(name, actions, regions) for name in group.regions)
    )


def skipped(name: str, actions: Mapping[str, Action], regions: Mapping[str, RegionInfo]) -> bool:
    """Whether a row does not compute a region: it, or what holds it, has another action."""
    at: str | None = name
    while at is not None and at not in actions:
        at = regions[at].parent
    return at is not None


def _move(
    name: str,
    letter: str,
    actions: Mapping[str, Action],
    reads: tuple[str, ...],
    groups: Sequence[Group],
    regions: Mapping[str, RegionInfo],
    orders: tuple[int, ...] = (0,),
) -> Move:
    return Move(name, letter, actions, reads, executed(actions, groups, regions), orders)


def _fitted(group: Group, groups: Sequence[Group], regions: Mapping[str, RegionInfo]) -> Move:
    actions = dict.fromkeys(group.regions, REUSE)
    done = executed(actions, groups, regions)
    return Move("fit", "F", actions, (group.name,), done, FIT_ORDERS, fitted=True)


def _group_name(region: RegionInfo) -> str:
    if region.kind == "chain":
        return "chains"
    if region.kind != "block":
        return region.name
    # A block is named by its chain, its attention's kind and, of several alike, a number.
    parts = region.name.split(".")
    return _BLOCKS + (parts[-2] if parts[-1].isdigit() and len(parts) > 1 else parts[-1])


def _letter(group: Group, level: str) -> str:
    if group.kind == "block":
        kind = group.name.removeprefix(_BLOCKS)
        return _BLOCK_LETTERS.get(kind, "b")
    return {"step": "S", "core": "K", "level": level, "chain": "c"}[group.kind]


def _used(found: Sequence[Move], use: Collection[str] | None) -> tuple[Move, ...]:
    if use is None:
        return tuple(found)
    names = [move.name for move in found]
    if unknown := sorted(set(use) - set(names)):
        raise CalibrationError(
            f"move {unknown[0]!r} is unknown to this model; it has {', '.join(sorted(names))}."
        )
    return tuple(move for move in found if move.name in use or move.name == "compute")
