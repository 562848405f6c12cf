"""What a graph asks of a machine, operator by operator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.fresh_memory import ALWAYS_FRESH, fresh_bytes, largest_value
from turbo4d.compiler.work import Work, work_of_graph


class Step(nn.Module):
    """One function of some tensors."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Tensor) -> Tensor:
        return self.function(*given)


def graph_of(function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> torch.fx.Graph:
    given = tuple(torch.empty(shape, device="meta") for shape in shapes)
    return capture_export(Step(function).eval(), given).module.graph


def asked(function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> Work:
    return work_of_graph(graph_of(function, *shapes))


def test_a_product_packs_its_left_operand_and_writes_a_bias_first() -> None:
    plain = asked(functional.linear, (10, 32), (64, 32))
    assert (plain.flops, plain.packed_bytes) == (2 * 10 * 32 * 64, 4 * 2 * 10 * 32)
    biased = asked(functional.linear, (10, 32), (64, 32), (64,))
    assert biased.packed_bytes - plain.packed_bytes == 4 * 2 * 10 * 64


def test_output_channels_fill_whole_vectors() -> None:
    four = asked(lambda x, w: functional.conv2d(x, w, padding=1), (2, 8, 6, 6), (4, 8, 3, 3))
    full = asked(lambda x, w: functional.conv2d(x, w, padding=1), (2, 8, 6, 6), (16, 8, 3, 3))
    assert four.flops == full.flops == 2 * 2 * 36 * 16 * 8 * 9
    assert four.packed_bytes == 2 * 4 * (2 * 8 * 36 + 4 * 8 * 9 + 2 * 4 * 36)


def test_an_attention_counts_its_groups_and_its_scores() -> None:
    def attend(q: Tensor, k: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, k)

    small = asked(attend, (6, 2, 5, 8), (6, 2, 7, 8))
    assert (small.groups, small.functions, small.calls) == (12, 12 * 5 * 7, 1)
    assert asked(attend, (6, 2, 65, 8), (6, 2, 7, 8)).groups == 24  # two blocks of queries


def test_functions_count_elements_and_norms_read_twice() -> None:
    assert asked(functional.gelu, (3, 5)) == Work(bytes=120, functions=15, calls=1, fresh_bytes=0)
    assert asked(lambda x: functional.layer_norm(x, (5,)), (3, 5)).bytes == 3 * 60


def test_views_ask_nothing_and_work_adds_up() -> None:
    assert asked(lambda x: (x + 1.0).reshape(15)[2:], (3, 5)) == asked(lambda x: x + 1.0, (3, 5))
    one, other = asked(functional.gelu, (3, 5)), asked(lambda x: x + 1.0, (3, 5))
    assert one + other - other == one
    assert (one - one) == Work()


MIB = 2**18  # float32 numbers of a megabyte


def widened(x: Tensor) -> Tensor:
    """Three values of 8 MiB from one of 1 MiB, twice; a little of each is kept."""
    first = x.repeat(8, 1).sin().cos().sum(0, keepdim=True)
    return (first + x).repeat(8, 1).sin().cos().sum(0, keepdim=True)


def test_what_the_heap_gives_back_is_taken_anew() -> None:
    graph = graph_of(widened, (1, MIB))
    assert largest_value(graph) == 8 << 20
    # Two values live at once, 16 MiB, and never more than that lies free: the heap keeps them.
    assert fresh_bytes(graph, 8 << 20) == 0
    # A heap that keeps no more than 2 MiB gives them back each time.
    assert fresh_bytes(graph, 1 << 20) >= 2 * (16 << 20)


def test_a_value_beyond_the_heap_is_always_taken_anew() -> None:
    graph = graph_of(lambda x: x + 1.0, (ALWAYS_FRESH // 4,))
    assert fresh_bytes(graph, 8 << 20) == ALWAYS_FRESH
    assert largest_value(graph) == 0


def test_a_view_keeps_what_it_shows() -> None:
    def late(x: Tensor) -> Tensor:
        shown = x.sin()[:, :4]
        return (x.cos().exp() + 1.0)[:, :4] + shown

    def early(x: Tensor) -> Tensor:
        shown = x.sin()[:, :4].clone()
        return (x.cos().exp() + 1.0)[:, :4] + shown

    held = [fresh_bytes(graph_of(each, (1, MIB)), 1 << 10) for each in (late, early)]
    assert held[0] >= held[1] > 0
