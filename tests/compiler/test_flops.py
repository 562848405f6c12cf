from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.flops import count_flops

from tests.compiler.captures import analysed


class _Of(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


CASES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    # x is [2, 3, 4, 6]; each count is written as 2 * outputs * terms per output.
    "linear": (lambda x: F.linear(x, torch.ones(5, 6)), 2 * (2 * 3 * 4 * 5) * 6),
    "matmul": (lambda x: x @ torch.ones(6, 7), 2 * (2 * 3 * 4 * 7) * 6),
    "conv": (lambda x: F.conv2d(x, torch.ones(8, 3, 3, 3), padding=1), 2 * (2 * 8 * 24) * 27),
    "strided": (lambda x: F.conv2d(x, torch.ones(8, 3, 2, 2), stride=2), 2 * (2 * 8 * 6) * 12),
    "depthwise": (lambda x: F.conv2d(x, torch.ones(3, 1, 1, 1), groups=3), 2 * (2 * 3 * 24) * 1),
    "transposed": (
        lambda x: F.conv_transpose2d(x, torch.ones(3, 5, 2, 2), stride=2),
        2 * (2 * 3 * 4 * 6) * (5 * 4),
    ),
    "attention": (
        lambda x: F.scaled_dot_product_attention(x, x[:, :, :2], x[:, :, :2, :5]),
        2 * (2 * 3 * 4 * 2) * (6 + 5),
    ),
    "einsum": (lambda x: torch.einsum("abcd,ed->abce", x, torch.ones(5, 6)), 2 * 24 * 5 * 6),
    "nothing": (lambda x: F.gelu(F.layer_norm(x, (6,))) * 2, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_two_per_multiply_add(case: str) -> None:
    function, wanted = CASES[case]
    capture = capture_export(_Of(function).eval(), (torch.ones(2, 3, 4, 6),))
    assert sum(count_flops(capture.module.graph).values()) == wanted


def test_a_whole_network_is_the_sum_of_its_layers() -> None:
    # multi_view: 12 images of 8 x 8 with 16 channels; two branches with 5 text tokens of 12.
    pixels, c = 12 * 64, 16
    convolutions = pixels * c * 9 * 4 * 2
    transformer = 8 * c * c  # q, k, v, out: 4; the feed-forward to 2c and back: 4
    cross = pixels * 2 * c * c + 12 * 5 * 2 * c * 12
    products = 2 * c * (pixels * 64 + pixels * 5 + pixels * 3 + pixels * 2)
    level = 12 * 16 * c
    total = convolutions + 3 * pixels * transformer + cross + products + level + pixels * c * c
    assert sum(analysed("multi_view").flops.values()) == 2 * total
