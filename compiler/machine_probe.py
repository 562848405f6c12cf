"""machine-probe: a machine's rates, each from an operator that does little else.

Every number is the lower quartile of some rounds, in which all take turns, so that what else runs
on the machine disturbs it less; what one operator spends on another number's account is taken off.
No network is run, so nothing is fitted to one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from turbo4d.compiler.fresh_memory import ALWAYS_FRESH

_ROUNDS = 15
_TINY_CALLS = 200
_GROUPS, _TOKENS, _HEAD = 2048, 5, 32
_ROWS, _WIDTH = 8192, 128


def rates_of(dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """The rates by the names of `Machine`'s fields.

    Args:
        dtype: of the operands.
        device: on which they lie.
    """
    wide = 1 if device.type == "cpu" else 8  # a GPU needs larger operands to be busy

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype)

    left, right = made(1024 * wide, 512 * wide), made(512 * wide, 512 * wide)
    # As large as the values of a network's widest level: a second-level cache does not hold them.
    one, other = made(2 * wide * wide, 2**20), made(2 * wide * wide, 2**20)
    # As a gated feed-forward hands it on: one half of each row.
    half = made(_ROWS * wide, 2 * _WIDTH)[:, _WIDTH:]
    query = made(_GROUPS, 1, _TOKENS, _HEAD)
    tiny = made(8)
    # Beyond what a C library keeps for itself: each time from the system, and given back to it.
    held = torch.empty(2 * ALWAYS_FRESH, device=device, dtype=torch.uint8)
    seconds = _quartiles(
        {
            "products": lambda: left @ right,
            "bytes": lambda: one + other,
            "functions": lambda: functional.gelu(half),
            "groups": lambda: functional.scaled_dot_product_attention(query, query, query),
            "fresh": lambda: torch.empty_like(held).fill_(1),
            "held": lambda: held.fill_(1),
            "calls": lambda: [tiny + tiny for _ in range(_TINY_CALLS)],
        },
        device,
    )
    bandwidth = 3 * _size(one) / seconds["bytes"]
    apart_s = {
        "functions": seconds["functions"] - 2 * _size(half) / bandwidth,
        "groups": seconds["groups"] - 4 * _size(query) / bandwidth,
    }
    return {
        "matmul_flops": 2 * left.numel() * right.shape[1] / seconds["products"],
        "bandwidth": bandwidth,
        "launch_s": seconds["calls"] / _TINY_CALLS,
        "function_s": max(apart_s["functions"], 0.0) / half.numel(),
        "group_s": max(apart_s["groups"], 0.0) / _GROUPS,
        "fresh_s": max(seconds["fresh"] - seconds["held"], 0.0) / held.numel(),
    }


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _quartiles(jobs: dict[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    with torch.no_grad():
        for turn in range(_ROUNDS + 2):
            for name, job in jobs.items():
                _wait(device)
                begun = time.perf_counter()
                job()
                _wait(device)
                if turn >= 2:  # the first rounds warm up
                    taken[name].append(time.perf_counter() - begun)
    return {
        name: statistics.quantiles(of, n=4, method="inclusive")[0] for name, of in taken.items()
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
