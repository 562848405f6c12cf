"""What only a GPU shows of all that turbo4d leans on; the probes beside these are `gpu_smoke`'s."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional


def memory_figures(device: torch.device) -> str:
    """The allocator's figures."""
    torch.cuda.reset_peak_memory_stats(device)
    torch.empty(2**20, device=device)
    return f"{torch.cuda.max_memory_allocated(device)} bytes at most"


def cuda_graphs(device: torch.device) -> str:
    """Whole steps recorded: two graphs of one pool, replayed with other inputs."""
    from turbo4d.runtime.cuda_recorder import CudaRecorder

    recorder = CudaRecorder(device)
    given = torch.ones(4, device=device)
    recordings = [recorder.record(lambda by=by: [[given * by]]) for by in (2.0, 3.0)]
    given.fill_(5.0)
    found: list[float] = []
    for recording in recordings:
        recording.replay()
        found.append(float(recording.results[0][0][0]))
    if found != [10.0, 15.0]:
        raise RuntimeError(f"replays give {found}, wanted [10.0, 15.0]")
    return "two graphs, one pool"


def triton_kernel(device: torch.device) -> str:
    """The attention over tiny sequences, compiled by Triton, beside torch's."""
    from turbo4d.runtime.tiny_attention import tiny_attention

    attend: Any = tiny_attention
    q = torch.randn(4, 16, 8, 4, 64, device=device, dtype=torch.bfloat16)
    found = attend(q, q, q, 0.125).float()
    turned = q.float().transpose(2, 3)
    wanted = functional.scaled_dot_product_attention(turned, turned, turned, scale=0.125)
    off = float((found - wanted.transpose(2, 3)).abs().max())
    if not off < 2e-2:
        raise RuntimeError(f"off by {off:.1e}")
    return f"off by {off:.0e}"


def triton_fused(device: torch.device) -> str:
    """Attention from its norm to its sum, each of the two ways to cut it, beside torch's calls."""
    from turbo4d.runtime.engines.triton_token_attention import launch
    from turbo4d.runtime.engines.triton_tuning import tuning_of

    told: list[str] = []
    for channels, heads in ((128, 4), (320, 5)):
        x = torch.randn(4, 8, 64, channels, device=device, dtype=torch.bfloat16).transpose(1, 2)
        square = [torch.randn(channels, channels, device=device) / channels**0.5 for _ in "qkvo"]
        weights = [each.to(x.dtype) for each in square]
        norm = functional.layer_norm(x, [channels])
        q, k, v = (
            functional.linear(norm, each).unflatten(-1, (heads, -1)).transpose(2, 3)
            for each in weights[:3]
        )
        scale = (channels // heads) ** -0.5
        found = functional.scaled_dot_product_attention(q, k, v, scale=scale)
        wanted = x + functional.linear(found.transpose(2, 3).flatten(3), weights[3])
        given = (weights[0], weights[1], weights[2], weights[3], None)
        off = (launch(x, (None, None, 1e-5), given, heads, scale, x) - wanted).norm()
        off = float(off / wanted.norm())
        if not off < 1e-2:
            raise RuntimeError(f"{channels} channels are off by {off:.1e}")
        whole = tuning_of(channels, heads, 8, x.dtype).whole
        told.append(f"{channels} channels, {'one kernel' if whole else 'two'}: off by {off:.0e}")
    return "; ".join(told)


def triton_fed(device: torch.device) -> str:
    """A gated feed-forward from its norm to its sum beside torch's calls."""
    from turbo4d.runtime.engines.triton_gated_feed_forward import launch

    x = torch.randn(4096, 320, device=device, dtype=torch.bfloat16)
    up = (torch.randn(2560, 320, device=device) / 320**0.5).to(x.dtype)
    down = (torch.randn(320, 1280, device=device) / 1280**0.5).to(x.dtype)
    value, gate = functional.linear(functional.layer_norm(x, [320]), up).chunk(2, -1)
    wanted = x + functional.linear(value * functional.gelu(gate), down)
    found = launch(x, (None, None, 1e-5), (up, None, down, None), x)
    off = float((found - wanted).norm() / wanted.norm())
    if not off < 1e-2:
        raise RuntimeError(f"off by {off:.1e}")
    return f"off by {off:.0e}"


ON_CUDA: Mapping[str, Callable[[torch.device], str]] = {
    "memory figures": memory_figures,
    "CUDA graphs": cuda_graphs,
    "Triton kernel": triton_kernel,
    "Triton fused attention": triton_fused,
    "Triton feed-forward": triton_fed,
}
