"""What an engine's rows must agree on with the call, the weights, the regions and the prologue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from turbo4d.runtime.errors import BundleError
from turbo4d.runtime.region_info import RegionInfo, slot_region

from .dtypes import dtype_named, name_of
from .manifest import EngineRow, TensorRow, VariantRow

Form = tuple[tuple[int, ...], str]
"""Shape and dtype."""

_GIVEN = ("output", "slot")
_TAKEN = ("input", "weight", "prologue", "slot", "flag")
_TAKEN_BY_PROLOGUE = ("input", "weight")


@dataclass(frozen=True)
class Known:
    """What an engine's rows may refer to.

    Args:
        inputs: of the call, by name.
        outputs: of the model, in order; the same for all variants.
        weights: by name.
        prologue: what it gives, in order.
        regions: by name.
        engines: by name.
    """

    inputs: Mapping[str, Form]
    outputs: Sequence[Form]
    weights: Mapping[str, Form]
    prologue: Sequence[Form]
    regions: Mapping[str, RegionInfo]
    engines: Mapping[str, EngineRow]


def check_engine(row: EngineRow, known: Known, *, is_prologue: bool) -> None:
    """Refuse an engine whose rows lead nowhere, or to another shape or dtype.

    Args:
        row: of the engine.
        known: what it may refer to.
        is_prologue: whether it is the prologue.

    Raises:
        BundleError: naming the engine and the tensor.
    """
    place = f"engine {row.name!r}"
    for rows in (row.takes, row.gives):
        names = Counter(each.name for each in rows)
        if twice := sorted(name for name, count in names.items() if count > 1):
            raise BundleError(f"{place} has {twice[0]!r} twice.")
        seen: Counter[str] = Counter()
        for each in rows:
            if each.kind not in _allowed(rows is row.gives, is_prologue):
                raise BundleError(f"{place}: {each.name!r} is a {each.kind} where none may be.")
            if not (each.kind == "output" and is_prologue):
                _check_form(each, known, seen[each.source], f"{place}: {each.name!r}")
            seen[each.source] += each.kind == "slot"
    outputs = [each.source for each in row.gives if each.kind == "output"]
    wanted = len(row.gives) if is_prologue else len(known.outputs)
    if outputs != [str(at) for at in range(wanted)] or any(
        each.kind == "output" for each in row.gives[wanted:]
    ):
        raise BundleError(f"{place} gives the outputs {outputs}; wanted {wanted}, in order.")
    order = [_TAKEN.index(each.kind) for each in row.takes if each.kind in ("slot", "flag")]
    if order != sorted(order):
        raise BundleError(f"{place} takes a slot after a flag; wanted slots, then flags.")


def check_variant(row: VariantRow, known: Known, prologue: str | None) -> None:
    """Refuse a variant whose engine is unknown, or has other slots.

    Raises:
        BundleError: naming the variant.
    """
    place = f"variant {row.key.name!r}"
    engine = known.engines.get(row.engine)
    if engine is None or row.engine == prologue:
        raise BundleError(f"{place} has the engine {row.engine!r}, which is none of a variant's.")
    if {*row.reads} != {*row.key.reads} or {*row.writes} != {*row.key.writes}:
        raise BundleError(f"{place} reads {row.reads} and writes {row.writes}; its key differs.")
    taken = [each.source for each in engine.takes if each.kind == "slot"]
    given = [each.source for each in engine.gives if each.kind == "slot"]
    flags = {each.source for each in engine.takes if each.kind == "flag"}
    if flags:
        fits = not (Counter(row.reads) - Counter(taken) or Counter(row.writes) - Counter(given))
        fits = fits and {name for name, _ in row.key.actions} <= flags
    else:
        fits = ([*row.reads], [*row.writes]) == (taken, given)
    if not fits:
        raise BundleError(f"{place} has other slots or regions than its engine {row.engine!r}.")


def _allowed(given: bool, is_prologue: bool) -> Sequence[str]:
    if given:
        return _GIVEN[:1] if is_prologue else _GIVEN
    return _TAKEN_BY_PROLOGUE if is_prologue else _TAKEN


def _check_form(row: TensorRow, known: Known, number: int, place: str) -> None:
    """The tensor must be what its source is.

    Args:
        row: of the tensor.
        known: the sources.
        number: of a slot: how many tensors of it stand before.
        place: what it is called in an error.
    """
    got = row.shape, row.dtype
    dtype_named(row.dtype)
    if row.kind == "slot":
        _check_slot(row, known, number, place)
        return
    wanted: Form | None = None
    if row.kind == "input":
        wanted = known.inputs.get(row.source)
    elif row.kind == "weight":
        wanted = known.weights.get(row.source)
    elif row.kind == "flag":
        wanted = ((), "bool") if row.source in known.regions else None
    else:
        forms = known.prologue if row.kind == "prologue" else known.outputs
        wanted = {str(at): form for at, form in enumerate(forms)}.get(row.source)
    if wanted is None:
        raise BundleError(f"{place} is the {row.kind} {row.source!r}, which is unknown.")
    if got != wanted:
        raise BundleError(f"{place} is {_said(got)}; {row.kind} {row.source!r} is {_said(wanted)}.")


def _check_slot(row: TensorRow, known: Known, number: int, place: str) -> None:
    region = known.regions.get(row.source)
    size = prod(row.shape) * dtype_named(row.dtype).itemsize
    if region is not None:
        forms = [(shape, name_of(dtype)) for shape, dtype in region.slot_forms]
        if forms and number < len(forms) and (row.shape, row.dtype) != forms[number]:
            said = _said((row.shape, row.dtype))
            raise BundleError(f"{place} is {said}; its region's slot is {_said(forms[number])}.")
        fits = number < len(forms) if forms else size <= region.slot_bytes
    else:
        owner = slot_region(row.source)
        users = [each for each in known.regions.values() if each.relevance == owner]
        fits = owner != row.source and any(each.relevance_bytes == size for each in users)
    if not fits:
        raise BundleError(f"{place} is the slot {row.source!r}, which no region has so.")


def _said(form: Form) -> str:
    return f"{form[1]}{[*form[0]]}"
