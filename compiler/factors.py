"""Factors: what the axes of a value are made of, as pieces of the axes they came from.

A root is an axis as it first appears. A reshape cuts roots into atoms, each a run of digits of its
root's index (as in a mixed-radix number), and joins atoms of several roots in one axis; the atoms
of one root grow together again when they meet. So `[B*F*V, S] -> [B, F, V, S] -> [B*F*S, V]` is
followed exactly, whatever the sizes are called.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(eq=False)
class Root:
    """An axis as it first appears.

    Args:
        letter: what it is, where known: "N" the flat image axis, "F", "V", "H", "W", "C", "S"
            tokens of an image, "context" tokens of conditioning, "?" unknown.
        size: its length.
        product: the atoms it was made from by a reshape that cut across them; it dissolves into
            them when whole again.
        union: what it was joined from end to end (a concatenation), or resized or sliced from.
        why: for an unknown one, the operator that made it.
    """

    letter: str
    size: int
    product: Axis = ()
    union: tuple[Axis, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Atom:
    """The part `(index // inner) % size` of a root's index."""

    root: Root
    inner: int
    size: int


Axis = tuple[Atom, ...]
"""The atoms of one dimension, outermost first; empty for length 1."""
Axes = tuple[Axis, ...]
"""Of every dimension of a value."""


def whole(root: Root) -> Axis:
    """The axis that is exactly `root`."""
    return (Atom(root, 1, root.size),) if root.size > 1 else ()


def fresh(letter: str, size: int, why: str = "") -> Axis:
    """A new axis."""
    return whole(Root(letter, size, why=why))


def resized(axis: Axis, size: int) -> Axis:
    """An axis of another length that means the same: sliced, padded, strided or interpolated."""
    if length(axis) == size:
        return axis
    return whole(Root("", size, union=(axis,)))


def length(axis: Axis) -> int:
    """Length of an axis."""
    return math.prod(atom.size for atom in axis)


def joined(axis: Sequence[Atom]) -> Axis:
    """The same axis with neighbouring pieces of one root grown together."""
    result: list[Atom] = []
    for atom in axis:
        last = result[-1] if result else None
        if last and last.root is atom.root and last.inner == atom.inner * atom.size:
            result[-1] = Atom(atom.root, atom.inner, last.size * atom.size)
        else:
            result.append(atom)
    if any(atom.root.product and atom.size == atom.root.size for atom in result):
        opened: list[Atom] = []
        for atom in result:
            complete = atom.root.product and atom.size == atom.root.size
            opened.extend(atom.root.product if complete else (atom,))
        return joined(opened)
    return tuple(result)


def regrouped(axes: Sequence[Axis], shape: Sequence[int]) -> Axes:
    """The axes of a row-major reshape to `shape`."""
    # Pieces that a cut across separated dissolve here, if they are next to each other again.
    waiting = list(joined([atom for axis in axes for atom in axis]))
    result: list[Axis] = []
    at = 0
    while at < len(shape):
        count, taken = 1, _take(waiting, shape[at])
        while taken is None:
            # The side cuts across an atom; some more sides together do not.
            count += 1
            taken = _take(waiting, math.prod(shape[at : at + count]))
        group, waiting = taken
        sides = shape[at : at + count]
        result += [joined(group)] if count == 1 else _cut_across(joined(group), sides)
        at += count
    return tuple(result)


def _take(waiting: list[Atom], side: int) -> tuple[list[Atom], list[Atom]] | None:
    """The leading atoms that make up `side`, and the rest; None where it cuts across an atom."""
    axis: list[Atom] = []
    rest = list(waiting)
    while side > 1:
        atom = rest.pop(0)
        if side % atom.size == 0:
            axis.append(atom)
            side //= atom.size
        elif atom.size % side == 0:
            minor = atom.size // side
            axis.append(Atom(atom.root, atom.inner * minor, side))
            rest.insert(0, Atom(atom.root, atom.inner, minor))
            side = 1
        else:
            return None
    return axis, rest


def _cut_across(group: Axis, shape: Sequence[int]) -> list[Axis]:
    root = Root("?", length(group), product=group, why="reshape")
    inner = root.size
    result: list[Axis] = []
    for side in shape:
        inner //= side
        result.append((Atom(root, inner, side),) if side > 1 else ())
    return result


def pieces(axis: Axis) -> list[Atom]:
    """The atoms of plain roots that an axis runs over, unions and products looked through.

    Of a root that a reshape cut across, only the atoms that the piece actually moves through.
    """
    found: list[Atom] = []
    for atom in axis:
        if atom.root.union:
            for part in atom.root.union:
                found.extend(pieces(part))
        elif atom.root.product:
            found.extend(pieces(_covered(atom)))
        else:
            found.append(atom)
    return found


def _covered(atom: Atom) -> Axis:
    low, high = atom.inner, atom.inner * atom.size
    covered: list[Atom] = []
    inner = 1
    for part in reversed(atom.root.product):
        if low < inner * part.size and inner < high:
            covered.insert(0, part)
        inner *= part.size
    return tuple(covered)
