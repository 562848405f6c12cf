"""However a block adds to its stream, it is found from its entry to its last feed-forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export

from tests.compiler.legal_plans import run_plan
from tests.compiler.plan_interpreter import Interpreter
from tests.support import flat_args

C, DEPTH, TOKENS, IMAGES = 8, 2, 16, 3
Part = Callable[[Tensor], Tensor]


class Attention(nn.Module):
    """Over the tokens of [G, L, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, -1)).mT for part in self.qkv(x).chunk(3, dim=-1))
        q, k, v = (part.permute(0, 3, 1, 2) for part in (q, k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v).permute(0, 2, 1, 3).flatten(2))


class Block(nn.Module):
    """Attention and feed-forward, put to the stream by a function of `ADDED`."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.attend, self.norms = Attention(), nn.ModuleList(nn.LayerNorm(C) for _ in range(4))
        self.feed = nn.Sequential(nn.Linear(C, 2 * C), nn.GELU(), nn.Linear(2 * C, C))
        self.gate, self.own = nn.Parameter(torch.ones(C) / 3), nn.Linear(C, C)
        self.wide, self.narrow = nn.Linear(C, 2 * C), nn.Linear(3 * C, C)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return ADDED[self.how](self, x)


def in_turn(add: Callable[[Block, Tensor, Tensor], Tensor]) -> Callable[[Block, Tensor], Tensor]:
    """Attention, then feed-forward, each put to the stream in the same way."""

    def run(b: Block, x: Tensor) -> Tensor:
        x = add(b, x, b.attend(b.norms[0](x)))
        return add(b, x, b.feed(b.norms[1](x)))

    return run


def post_norm(b: Block, x: Tensor) -> Tensor:
    x = b.norms[0](x + b.attend(x))
    return b.norms[1](x + b.feed(x))


def parallel(b: Block, x: Tensor) -> Tensor:
    y = b.norms[0](x)
    return x + b.attend(y) + b.feed(y)


def parallel_of_two_norms(b: Block, x: Tensor) -> Tensor:
    return x + b.feed(b.norms[0](x)) + b.attend(b.norms[1](x))


def single(b: Block, x: Tensor) -> Tensor:
    """As the single blocks of HunyuanVideo: one projection of both."""
    y = b.norms[0](x)
    return x + b.gate * b.narrow(torch.cat([b.attend(y), F.gelu(b.wide(y))], dim=-1))


def in_place(b: Block, x: Tensor) -> Tensor:
    y = b.attend(b.norms[0](x))
    y += x
    z = b.feed(b.norms[1](y))
    z += y
    return z


def own_gate(b: Block, x: Tensor) -> Tensor:
    x = x + torch.sigmoid(b.own(x)) * b.attend(b.norms[0](x))
    return x + b.feed(b.norms[1](x))


def sandwich(b: Block, x: Tensor) -> Tensor:
    x = x + b.norms[2](b.attend(b.norms[0](x)))
    return x + b.norms[3](b.feed(b.norms[1](x)))


ADDED: dict[str, Callable[[Block, Tensor], Tensor]] = {
    "plain": in_turn(lambda b, x, y: x + y),
    "gated": in_turn(lambda b, x, y: x + b.gate * y),
    "halved": in_turn(lambda b, x, y: x + 0.5 * y),
    "fused": in_turn(lambda b, x, y: torch.addcmul(x, b.gate, y)),
    "by_alpha": in_turn(lambda b, x, y: torch.add(x, y, alpha=0.5)),
    "subtracted": in_turn(lambda b, x, y: x - y),
    "mixed": in_turn(lambda b, x, y: 0.7 * x + 0.3 * y),
    "lerp": in_turn(lambda b, x, y: torch.lerp(x, y, 0.3)),
    "cast": in_turn(lambda b, x, y: (x.double() + y.double() * b.gate).type_as(x)),
    "post_norm": post_norm,
    "sandwich": sandwich,
    "parallel": parallel,
    "parallel_of_two_norms": parallel_of_two_norms,
    "parallel_attention_first": lambda b, x: x + b.attend(b.norms[0](x)) + b.feed(b.norms[1](x)),
    "single": single,
    "own_gate": own_gate,
    "in_place": in_place,
}
RESCALED = in_turn(lambda b, x, y: (x + y) / 1.4)


class Net(nn.Module):
    """Blocks in tokens between two convolutions; `skip` joins the first block's end to the last."""

    def __init__(self, how: str, *, skip: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, C, 3, padding=1), nn.Conv2d(C, 4, 3, padding=1)
        self.blocks = nn.ModuleList(Block(how) for _ in range(DEPTH + skip))
        self.join = nn.Linear(2 * C, C) if skip else None

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, None)

    def run(self, x: Tensor, interpreter: Interpreter | None) -> Tensor:
        """As a call, with an interpreter at each block."""
        images = self.first(x)
        tokens = images.flatten(2).mT
        early: Tensor | None = None
        for number, block in enumerate(self.blocks):
            if self.join is not None and early is not None and number == DEPTH:
                tokens = self.join(torch.cat([early, tokens], dim=-1))
            if interpreter is None:
                tokens = block(tokens)
            else:
                form = "sum" if block.how == "single" else "difference"
                visit = interpreter if form == "difference" else _added(interpreter)
                tokens = visit(f"stack.{number}.chain", form, tokens, block)
            early = tokens if early is None else early
        return self.last(tokens.mT.reshape(images.shape))


def _added(interpreter: Interpreter) -> Callable[[str, str, Tensor, Any], Tensor]:
    def visit(name: str, form: str, entry: Tensor, block: Any) -> Tensor:
        def added(x: Tensor) -> Tensor:
            found: list[Tensor] = []
            hook = block.narrow.register_forward_hook(lambda *call: found.append(call[2]))
            block(x)
            hook.remove()
            return block.gate * found[0]

        return interpreter(name, form, entry, added)

    return visit


def network(how: str, *, skip: bool = False) -> tuple[Net, Tensor, Analysis]:
    """A network with weights that are all at work, a call, and what is found."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net(how, skip=skip).eval()
        x = torch.randn(IMAGES, 4, 4, 4)
    return net, x, analyse(capture_export(net, (x,)))


def cost(how: str) -> int:
    """Operations of a block: its projections, attention, and the rest of it."""
    linears = {"single": 4 + 2 + 3, "own_gate": 4 + 4 + 1}.get(how, 4 + 4)
    return IMAGES * TOKENS * (2 * linears * C * C + 4 * TOKENS * C)


@pytest.mark.parametrize("how", ADDED)
def test_a_block_is_a_chain_however_it_adds_to_the_stream(how: str) -> None:
    net, x, found = network(how)
    chains = [region for region in found.regions if region.kind == "chain"]
    names = [chain.name for chain in chains]
    assert names == [f"stack.{n}.chain" for n in range(DEPTH)]
    form = "sum" if how == "single" else "difference"
    assert [[port.form for port in chain.ports] for chain in chains] == [[form]] * DEPTH
    assert [chain.flops for chain in chains] == [cost(how)] * DEPTH
    assert chains[0].exit == chains[1].entry
    check_plan(net, x, found, names)


def check_plan(net: Net, x: Tensor, found: Analysis, names: list[str]) -> None:
    """Recorded in one step, reused in the next for another sample, as the blocks would be."""
    rows = [{}, dict.fromkeys(names, "reuse"), {names[0]: "bypass"}]
    calls = [x, x.flip(0), 0.5 * x]
    got = run_plan(found, rows, [flat_args(found.capture, (call,)) for call in calls])
    interpreter = Interpreter({**dict.fromkeys(names, "core"), "core": None})
    for row, call, output in zip(rows, calls, got, strict=True):
        interpreter.begin(row)
        with torch.no_grad():
            assert torch.equal(output, net.run(call, interpreter))


def test_a_stream_that_is_scaled_between_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last scaling is the stream's own: the chain ends with the sum before it."""
    monkeypatch.setitem(ADDED, "rescaled", RESCALED)
    _, _, found = network("rescaled")
    chains = [region for region in found.regions if region.kind == "chain"]
    assert [chain.flops for chain in chains] == [cost("rescaled")] * DEPTH
    assert len(found.regions) == 2 + DEPTH  # with the core and the step


def test_skips_between_blocks_leave_them_whole() -> None:
    net, x, found = network("plain", skip=True)
    chains = [region for region in found.regions if region.kind == "chain"]
    assert [chain.flops for chain in chains] == [cost("plain")] * (DEPTH + 1)
    check_plan(net, x, found, [chain.name for chain in chains])
