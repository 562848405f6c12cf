"""How the rows of a value lie: its axes, each as digits of a row's place in a dense value.

A value [B, F, V, P, C] has rows of C channels. Of its view [B F P, V, C] the first axis is the
digits of B and F, then those of P; the second those of V, which lie between. So any reshape and
permute that leaves rows whole is followed, and what it makes is known to be a view or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Digit = tuple[int, int]
"""(size, rows from one to the next)."""


@dataclass(frozen=True)
class Lying:
    """Where the rows of a value lie in a dense one.

    Args:
        axes: of every axis but the channels', its digits, outermost first; none for length 1.
    """

    axes: tuple[tuple[Digit, ...], ...]

    @classmethod
    def of(cls, shape: Sequence[int]) -> Lying:
        """A dense value of this shape, channels included."""
        sizes = shape[:-1]
        return cls(tuple(_joined([(size, math.prod(sizes[at + 1 :]))])
                         for at, size in enumerate(sizes)))  # fmt: skip

    @property
    def digits(self) -> list[Digit]:
        """All of them, as the dense value has them."""
        return sorted((each for axis in self.axes for each in axis), key=lambda each: -each[1])

    @property
    def plain(self) -> bool:
        """Whether the rows are in their order, so that the value is the dense one reshaped."""
        return [each for axis in self.axes for each in axis] == self.digits

    @property
    def sizes(self) -> list[int]:
        """Of the dense value, an axis for each digit."""
        return [size for size, _ in self.digits]

    @property
    def order(self) -> list[int]:
        """The permutation from the dense value's digits, and the channels, to the axes'."""
        digits = self.digits
        return [*(digits.index(each) for axis in self.axes for each in axis), len(digits)]

    def permuted(self, order: Sequence[int]) -> Lying | None:
        """After a permute; None where it moves the channels."""
        if order[-1] not in (-1, len(self.axes)):
            return None
        return Lying(tuple(self.axes[axis] for axis in order[:-1]))

    def reshaped(self, shape: Sequence[int]) -> Lying | None:
        """After a reshape to a shape, channels included; None where it cuts across digits."""
        left = [each for axis in self.axes for each in axis]
        axes: list[tuple[Digit, ...]] = []
        for wanted in shape[:-1]:
            axis: list[Digit] = []
            while wanted > 1:
                if not left:
                    return None
                size, apart = left.pop(0)
                if wanted % size == 0:
                    axis.append((size, apart))
                    wanted //= size
                elif size % wanted == 0:
                    axis.append((wanted, apart * (size // wanted)))
                    left.insert(0, (size // wanted, apart))
                    wanted = 1
                else:
                    return None
            axes.append(_joined(axis))
        return None if left else Lying(tuple(axes))

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether a value of a shape, channels included, goes with every row or some axes."""
        own = [math.prod(size for size, _ in axis) for axis in self.axes][::-1]
        theirs = list(shape[:-1])[::-1]
        return len(theirs) <= len(own) and all(
            size in (1, whole) for size, whole in zip(theirs, own, strict=False)
        )

    def apart(self, shape: Sequence[int]) -> list[int]:
        """The shape, channels included, of a value that it takes, an axis for each digit."""
        sizes = [1] * (len(self.axes) + 1 - len(shape)) + list(shape[:-1])
        found = [
            size if whole > 1 else 1
            for axis, whole in zip(self.axes, sizes, strict=True)
            for size, _ in axis
        ]
        return [*found, shape[-1]]  # fmt: skip

    @property
    def back(self) -> list[int]:
        """The permutation from the axes' digits to those of the dense value."""
        order = self.order
        return [order.index(at) for at in range(len(order))]

    @property
    def groups(self) -> Groups | None:
        """The last axis as tokens, all before it as groups of two axes; None where it is not so."""
        if not self.axes or len(self.axes[-1]) != 1:
            return None
        [token] = self.axes[-1]
        others = [each for each in self.digits if each != token]
        joined = list(_joined(others))
        if len(joined) > 2:
            return None
        [outer, inner] = [(1, 0)] * (2 - len(joined)) + joined
        digits = self.digits
        order = [*(digits.index(each) for each in (*others, token)), len(digits)]
        return Groups((outer[0], inner[0], token[0]), tuple(order))


@dataclass(frozen=True)
class Groups:
    """A dense value seen as groups of tokens.

    Args:
        shape: outer groups, inner groups, tokens.
        order: the permutation from its digits, and the channels, to those of groups and tokens.
    """

    shape: tuple[int, int, int]
    order: tuple[int, ...]


def _joined(digits: Sequence[Digit]) -> tuple[Digit, ...]:
    """Digits, those that count on joined."""
    found: list[Digit] = []
    for size, apart in digits:
        if size == 1:
            continue
        if found and found[-1][1] == size * apart:
            found[-1] = (found[-1][0] * size, apart)
        else:
            found.append((size, apart))
    return tuple(found)
