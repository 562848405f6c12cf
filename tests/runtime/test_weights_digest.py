"""A digest that changes with the weights and holds none of them."""

from __future__ import annotations

import torch
from turbo4d.runtime.weights_digest import WeightsDigest, weights_digest


def test_it_is_of_names_shapes_and_bits_in_any_order() -> None:
    one, two = torch.ones(2, 3), torch.zeros(4, dtype=torch.bfloat16)
    known = weights_digest([("a", one), ("b", two)])
    assert weights_digest([("b", two), ("a", one)]) == known
    changed = [
        [("a", one), ("c", two)],
        [("a", one.view(3, 2)), ("b", two)],
        [("a", one + 1e-6), ("b", two)],
        [("a", one), ("b", two.to(torch.float16))],
    ]
    assert len({known, *map(weights_digest, changed)}) == 5


def test_it_follows_what_is_written_to_a_weight() -> None:
    weight = torch.ones(3)
    digest = WeightsDigest(["a"]).of([weight])
    before = digest()
    weight.mul_(2)
    assert digest() == weights_digest([("a", weight)]) != before


def test_of_weights_let_go_it_is_empty() -> None:
    digest = WeightsDigest(["a"]).of([torch.ones(3)])
    assert digest() == ""
