"""layout: how the tokens of an image, and the images, lie in the dimensions of a value.

A dimension is a row of atoms, outermost first. An atom is a root, and a run of digits of that
root's index: `(index // inner) % size`. Root "T" is the tokens of an image, never cut; "I" and "F"
are images and frames; "" is all else. So `[B*F, H*W, C]` is `("I*6", "T*16", "*32")`, and after the
rows went by pixel, `[B*H*W, F, C]`: `("I/3*2 T*16", "I*3", "*32")`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

TOKENS = "T"


class Atom(NamedTuple):
    """A part of an axis."""

    root: str
    inner: int
    size: int


Axis = tuple[Atom, ...]
Layout = tuple[Axis, ...]


class TokensMixedError(Exception):
    """A call in which tokens do not stay apart, or do not show that they do."""


def read_layout(text: Sequence[str]) -> Layout:
    """The layout that `layout_text` wrote: "I/6*2 T*16" for each dimension."""
    return tuple(tuple(_read_atom(atom) for atom in axis.split()) for axis in text)


def layout_text(layout: Layout) -> tuple[str, ...]:
    """The layout as strings, one for each dimension."""
    return tuple(" ".join(map(_atom_text, axis)) for axis in layout)


def _read_atom(text: str) -> Atom:
    name, _, size = text.partition("*")
    root, _, inner = name.partition("/")
    return Atom(root, int(inner or 1), int(size))


def _atom_text(atom: Atom) -> str:
    inner = f"/{atom.inner}" if atom.inner > 1 else ""
    return f"{atom.root}{inner}*{atom.size}"


def plain(size: int) -> Axis:
    """A dimension of which nothing matters but its length."""
    return (Atom("", 1, size),) if size > 1 else ()


def length(axis: Axis) -> int:
    """Of a dimension."""
    return prod(atom.size for atom in axis)


def holds_tokens(axis: Axis) -> bool:
    """Whether the tokens lie in it."""
    return any(atom.root == TOKENS for atom in axis)


def tokens_of(layout: Layout) -> int:
    """How many tokens there are."""
    [size] = [atom.size for axis in layout for atom in axis if atom.root == TOKENS]
    return size


def tokens_from_end(layout: Layout) -> int:
    """In which dimension the tokens lie, counted from the end: -1 is the last."""
    [found] = [at for at, axis in enumerate(layout) if holds_tokens(axis)]
    return found - len(layout)


def joined(atoms: Iterable[Atom]) -> Axis:
    """The atoms with neighbouring pieces of one root grown together."""
    found: list[Atom] = []
    for atom in atoms:
        last = found[-1] if found else None
        meets = last is not None and last.root == atom.root != TOKENS
        if meets and last is not None and not atom.root:
            found[-1] = Atom("", 1, last.size * atom.size)
        elif meets and last is not None and last.inner == atom.inner * atom.size:
            found[-1] = Atom(atom.root, atom.inner, last.size * atom.size)
        else:
            found.append(atom)
    return tuple(found)


def regrouped(layout: Layout, shape: Sequence[int]) -> Layout:
    """The layout after a row-major reshape.

    Raises:
        TokensMixedError: where a side cuts across the tokens, or across an atom.
    """
    waiting = list(joined(atom for axis in layout for atom in axis))
    found: list[Axis] = []
    for side in shape:
        axis: list[Atom] = []
        left = side
        while left > 1:
            atom = waiting.pop(0)
            if left % atom.size == 0:
                axis.append(atom)
                left //= atom.size
            elif atom.size % left == 0 and atom.root != TOKENS:
                minor = atom.size // left
                inner = atom.inner * minor if atom.root else 1
                axis.append(Atom(atom.root, inner, left))
                waiting.insert(0, Atom(atom.root, atom.inner, minor))
                left = 1
            else:
                raise TokensMixedError(f"it cuts {_atom_text(atom)} at {side}")
        found.append(joined(axis))
    return tuple(found)


def kept_shape(layout: Layout, count: int) -> list[int]:
    """The shape of a value that has `count` of its tokens."""
    return [prod(count if atom.root == TOKENS else atom.size for atom in axis) for axis in layout]
