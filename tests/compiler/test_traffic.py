"""Bytes moved: what an operator reads and writes, views for nothing."""

from __future__ import annotations

import torch
from torch import nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.traffic import count_bytes


class Step(nn.Module):
    """One function of one tensor."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def moved(function, *shape: int) -> int:
    capture = capture_export(Step(function).eval(), (torch.zeros(shape),))
    return count_bytes(capture.module.graph)


def test_an_operator_reads_its_operands_and_writes_its_result():
    assert moved(lambda x: x + 1.0, 3, 5) == 4 * (15 + 15)


def test_one_operand_used_twice_is_read_once():
    assert moved(lambda x: x * x, 3, 5) == 4 * (15 + 15)


def test_a_view_moves_nothing():
    assert moved(lambda x: x.permute(1, 0)[1:].unsqueeze(0) + 1.0, 3, 5) == 4 * (12 + 12)


def test_a_reshape_that_fits_moves_nothing_and_one_that_copies_moves_twice():
    assert moved(lambda x: x.reshape(15) + 1.0, 3, 5) == 4 * (15 + 15)
    assert moved(lambda x: x.permute(1, 0).reshape(15) + 1.0, 3, 5) == 4 * (15 + 15) * 2


def test_an_expanded_axis_is_read_once():
    assert moved(lambda x: x[:, None].expand(3, 7, 5) + 1.0, 3, 5) == 4 * (15 + 105)


def test_a_split_is_a_view_and_each_part_is_read_alone():
    assert moved(lambda x: x.chunk(2, dim=1)[0] + 1.0, 3, 4) == 4 * (6 + 6)
