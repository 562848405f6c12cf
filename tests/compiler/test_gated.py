"""Slots of what is behind gates of the level: the gates are of the step that reuses them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turbo4d.compiler.calibrate.harness import Harness
from turbo4d.runtime.action import REUSE

C = 8
LEVELS = (3.0, 2.0, 1.0)


class Gated(nn.Module):
    """Images [6, 4, 4, 4] of two videos: two parts, each behind a gate of the level."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, C), nn.Linear(C, 4)
        self.qkv, self.feed = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.gates = nn.Linear(8, 2 * C)
        self.held: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.03])
        gates = self.gates(torch.cat([angles.sin(), angles.cos()], dim=-1))[:, None]
        one, two = gates.chunk(2, dim=-1)
        h = self.first(x.flatten(2).mT).reshape(2, 48, C)
        attended = self.attend(h) if self.held is None else self.held[0]
        h = h + one * attended
        fed = self.feed(F.gelu(h)) if self.held is None else self.held[1]
        self.seen = attended, fed
        return self.last(h + two * fed).reshape(6, 16, 4).mT.unflatten(2, (4, 4))

    def attend(self, h: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(h).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Plain(Gated):
    """The same without noting what it saw, which a graph could not."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "seen":
            super().__setattr__(name, value)


def sampled(denoiser, x: Tensor) -> Tensor:
    for level in LEVELS:
        x = x - 0.1 * denoiser(x=x, t=torch.full((2,), level))
    return x


def test_a_step_that_reuses_a_chain_computes_its_gates_afresh() -> None:
    torch.manual_seed(0)
    network = Plain().eval()
    x = torch.randn(6, 4, 4, 4)
    harness = Harness(network, sampled, options={"geometry": {"batch": 2, "frames": 3}})
    harness.learn(x)
    [chain] = [region for region in harness.analysis.regions if region.kind == "chain"]
    assert [port.form for port in chain.ports] == ["gated", "gated"]
    plan = harness.plan(
        "reused", {"main": ({}, {chain.name: REUSE}, {})}, max_age=1, max_variants=3
    )
    made = harness.sample(x, plan)

    by_hand = Gated().eval()
    by_hand.load_state_dict(network.state_dict())
    with torch.no_grad():
        for step, level in enumerate(LEVELS):
            by_hand.held = by_hand.seen if step == 1 else None
            x = x - 0.1 * by_hand(x, torch.full((2,), level))
    torch.testing.assert_close(made, x, rtol=1e-6, atol=1e-6)
