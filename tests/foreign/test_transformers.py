"""Five video transformers of diffusers: every attention with its kind, exact identity, reuse."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers")

from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.bundle.tolerances import relative_error
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.lower.eager import EagerEngine
from turbo4d.compiler.lower.onnxruntime import OnnxRuntimeLowering
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.action import REUSE, Action
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.foreign_models import TINY, Foreign, build

from tests.compiler.legal_plans import Rows, run_plan
from tests.compiler.plan_interpreter import Interpreter, Values
from tests.support import flat_args

# Patches of 2 x 2 in images of 8 x 8; LTX is given its tokens as they are.
SPACE, HEADS = 4 * 4, 2
BATCH, FRAMES, WORDS = TINY.batch, TINY.frames, TINY.words
VIDEO = FRAMES * SPACE
JOINT = ("joint", VIDEO, VIDEO, HEADS, BATCH)
TEXT_TOO = ("joint", VIDEO + WORDS, VIDEO + WORDS, HEADS, BATCH)
CROSS = ("cross", VIDEO, WORDS, HEADS, BATCH)
LATTE = [
    ("spatial", SPACE, SPACE, HEADS, BATCH * FRAMES),
    ("cross", SPACE, WORDS, HEADS, BATCH * FRAMES),
    ("motion", FRAMES, FRAMES, HEADS, BATCH * SPACE),
]
SITES = {
    "cogvideox": [TEXT_TOO] * 3,
    "latte": LATTE * 3,
    "wan": [JOINT, CROSS] * 3,
    "hunyuan_video": [TEXT_TOO] * 4,
    "ltx_video": [JOINT, CROSS] * 3,
}
NOTES = {
    "cogvideox": {"over context F H W"},
    "latte": {""},
    "wan": {"over F H W", ""},
    "hunyuan_video": {"over F H W context, masked"},
    "ltx_video": {"over F H W", "masked"},
}
"""HunyuanVideo and LTX leave out the words that the text has not."""

# Of each chain, the form of each slot and how many tokens it holds of a branch.
TWO_STREAMS = [("gated", VIDEO)] * 2 + [("gated", WORDS)] * 2
WITH_TEXT = [("gated", VIDEO), ("sum", VIDEO), ("gated", VIDEO)]
PORTS: dict[str, list[list[tuple[str, int]]]] = {
    "cogvideox": [TWO_STREAMS, TWO_STREAMS, TWO_STREAMS[:2]],
    "latte": [[("difference", SPACE)], [("difference", FRAMES)]] * 3,
    "wan": [WITH_TEXT] * 3,
    "hunyuan_video": [TWO_STREAMS] * 2 + [[("gated", VIDEO + WORDS)]] * 2,
    "ltx_video": [WITH_TEXT] * 3,
}
"""Behind each gate one, attention then feed-forward, the video's before the text's. No gate scales
what attends over the text in Wan and LTX. Of CogVideoX nothing reads the text after its last block.
"""


@cache
def network(name: str) -> tuple[Foreign, Analysis]:
    """A transformer with one call, and what the compiler finds without being told anything."""
    foreign = build(name)
    return foreign, analyse(capture_export(foreign.module, (), foreign.inputs))


@pytest.mark.parametrize("name", SITES)
def test_every_attention_is_a_site_of_its_kind(name: str) -> None:
    foreign, found = network(name)
    got = [(s.kind, s.query_tokens, s.key_tokens, s.heads, s.groups) for s in found.sites]
    assert got == SITES[name]
    assert {site.note for site in found.sites} == NOTES[name]
    # As many as the modules that attend; HunyuanVideo refines its text first.
    modules = [m for m in foreign.module.modules() if type(m).__name__.endswith("Attention")]
    refiners = ["context"] if name == "hunyuan_video" else []
    assert [one.over for one in found.aside] == refiners
    assert len(modules) == len(found.sites) + len(refiners)
    assert not found.unread


@pytest.mark.parametrize("name", SITES)
def test_the_geometry_is_found_in_the_graph(name: str) -> None:
    foreign, found = network(name)
    sizes = found.geometry.as_dict()
    assert {what: sizes[what] for what in foreign.geometry} == dict(foreign.geometry)
    assert sizes["views"] == 1


@pytest.mark.parametrize("name", SITES)
def test_every_transformer_block_is_a_chain(name: str) -> None:
    _, found = network(name)
    *outer, core = (region for region in found.regions if region.kind in ("step", "core"))
    chains = [region for region in found.regions if region.kind not in ("step", "core")]
    # Latte gives a variance beside the noise, so what it gives is not like its sample.
    assert [region.name for region in outer] == ([] if name == "latte" else ["step"])
    assert core.name == "core"
    assert [chain.name for chain in chains] == [f"stack.{n}.chain" for n in range(len(chains))]
    assert {chain.parent for chain in chains} == {"core"}
    held = [[(port.form, port.shape[1]) for port in chain.ports] for chain in chains]
    assert held == PORTS[name]
    # Together with the products before the first and after the last, they are all there is.
    inside = sum(chain.flops for chain in chains)
    assert 0.9 < inside / core.flops < 1


@pytest.mark.parametrize("name", SITES)
def test_a_plan_without_actions_is_the_module_to_the_bit(name: str) -> None:
    foreign, found = network(name)
    with torch.no_grad():
        [expected] = foreign.module(**foreign.inputs)
    [got] = run_plan(found, [{}], [flat_args(found.capture, (), foreign.inputs)])
    assert torch.equal(got, expected)


# The largest angle of a timestep's sinusoid: HunyuanVideo is given its guidance in thousandths.
ANGLES = {**dict.fromkeys(SITES, 701.0), "hunyuan_video": 6000.0}


@pytest.mark.parametrize("name", SITES)
def test_it_means_the_same_in_onnx(name: str) -> None:
    """The plain graph, which holds all that the exact one and its prologue share between them."""
    pytest.importorskip("onnxruntime", reason="turbo4d[cpu] is not installed")
    foreign, found = network(name)
    args = flat_args(found.capture, (), foreign.inputs)
    variant = specialise(found, VariantKey((), (), exact=False))
    (got,), _ = OnnxRuntimeLowering().compile(variant)(args, (), ())
    (wanted,), _ = EagerEngine(variant)(args, (), ())
    bound = relative_error(torch.float32, angle=ANGLES[name])
    assert (got - wanted).norm() <= bound * wanted.norm()


# What adds to the stream in each kind of block, behind a gate of the level or, attending over the
# text, as it is. Of Latte's, which can be pruned, a slot holds all that the block adds.
PARTS = {
    "CogVideoXBlock": ("attn1", "ff"),
    "WanTransformerBlock": ("attn1", "attn2", "ffn"),
    "HunyuanVideoTransformerBlock": ("attn", "ff", "ff_context"),
    "HunyuanVideoSingleTransformerBlock": ("proj_out",),
    "LTXVideoTransformerBlock": ("attn1", "attn2", "ff"),
    "BasicTransformerBlock": (),
}


def blocks_of(module: Any) -> list[nn.Module]:
    """The transformer blocks in the order of the call."""
    first = getattr(module, "blocks", None) or module.transformer_blocks
    if hasattr(module, "temporal_transformer_blocks"):
        pairs = zip(first, module.temporal_transformer_blocks, strict=True)
        return [block for pair in pairs for block in pair]
    return [*first, *getattr(module, "single_transformer_blocks", [])]


def interpreted(name: str, rows: Rows, steps: list[dict[str, Any]]) -> list[Tensor]:
    """The outputs of each step by the network's own blocks, and a dict of slots.

    A reused block is called all the same, so that its norms and gates are of the step and its
    entry; what its parts give is of the step that computed it.
    """
    foreign, found = network(name)
    chains = [region.name for region in found.regions if region.kind == "chain"]
    blocks = dict(zip(chains, blocks_of(foreign.module), strict=True))
    parts = {chain: _parts(chain, block) for chain, block in blocks.items()}
    inside = {part: chain for chain, own in parts.items() for part in own}
    interpreter = Interpreter({**inside, **dict.fromkeys(chains, "core"), "core": None})
    for own in parts.values():
        for part, module in own.items():
            visit = _added if module in blocks.values() else _given
            module.forward = visit(interpreter, part, module.forward)
    outputs: list[Tensor] = []
    with torch.no_grad():
        for row, step in zip(rows, steps, strict=True):
            interpreter.begin({part: row[inside[part]] for part in inside if inside[part] in row})
            outputs.append(foreign.module(**step)[0])
    for own in parts.values():
        for module in own.values():
            del module.forward
    return outputs


def _parts(chain: str, block: nn.Module) -> dict[str, nn.Module]:
    """What has slots of its own in a block, by the names of these."""
    names = PARTS[type(block).__name__]
    return {f"{chain}.{name}": block.get_submodule(name) for name in names} or {chain: block}


def _given(interpreter: Interpreter, name: str, forward: Any) -> Any:
    """A part whose slots hold what it gives."""

    def visited(*args: Any, **kwargs: Any) -> Any:
        def run() -> Values:
            made = forward(*args, **kwargs)
            return made if isinstance(made, tuple) else (made,)

        first, *others = interpreter.values(name, run)
        return (first, *others) if others else first

    return visited


def _added(interpreter: Interpreter, name: str, forward: Any) -> Any:
    """A block of one stream whose slot holds what it adds."""

    def visited(entry: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return interpreter(name, "difference", entry, lambda x: forward(x, *args, **kwargs))

    return visited


@pytest.mark.parametrize("name", SITES)
def test_reused_blocks_are_what_plain_python_makes_of_them(name: str) -> None:
    """All of them, then every second, each with another sample and level than was recorded."""
    foreign, found = network(name)
    names = [region.name for region in found.regions if region.kind == "chain"]
    turns = dict.fromkeys(names[1::2], "reuse")
    rows: Rows = [{}, dict.fromkeys(names, "reuse"), turns, dict.fromkeys(names[:-1], "reuse")]
    generator = torch.Generator().manual_seed(3)
    sample = foreign.inputs[foreign.sample]
    steps = [
        foreign.call(sample + 0.3 * torch.randn(sample.shape, generator=generator), 700 - 100 * n)
        for n in range(len(rows))
    ]
    got = run_plan(found, rows, [flat_args(found.capture, (), step) for step in steps])
    for output, expected in zip(got, interpreted(name, rows, steps), strict=True):
        assert torch.equal(output, expected)
    assert not torch.equal(got[0], got[1])


@pytest.mark.parametrize("name", SITES)
def test_reused_blocks_cost_nothing(name: str) -> None:
    _, found = network(name)
    chains = [region for region in found.regions if region.kind == "chain"]
    key = VariantKey(tuple((chain.name, REUSE) for chain in chains), (), exact=False)
    left = sum(count_flops(specialise(found, key).module.graph).values())
    whole, inside = sum(found.flops.values()), sum(chain.flops for chain in chains)
    # What all blocks read and nothing else does, such as the projected text, is gone as well.
    assert 0 < left <= whole - inside < 0.06 * whole


@pytest.mark.parametrize("chain", ["stack.0.chain", "stack.1.chain"])
def test_a_pruned_block_on_fresh_slots_is_the_block(chain: str) -> None:
    """Keys see all tokens, so kept ones are exact; the rest comes from a slot of the same call.

    Latte scales and shifts what its norms give: queries want that of the kept tokens, keys of all.
    """
    foreign = build("latte")
    analysis = analyse(capture_export(foreign.module, (), foreign.inputs), foreign.geometry)
    args = flat_args(analysis.capture, (), foreign.inputs)
    source = next(r.pruning.source for r in analysis.regions if r.name == chain and r.pruning)
    relevance = f"{source}.relevance"
    fresh = EagerEngine(specialise(analysis, VariantKey((), (chain, relevance), False)))
    key = VariantKey(((chain, Action(kind="prune", keep=0.5)),), (), False, (relevance,))
    pruned = EagerEngine(specialise(analysis, key))
    wanted, written = fresh(args, (), ())
    slots = dict(zip(fresh.writes, written, strict=True))
    got, _ = pruned(args, (), [slots[name] for name in pruned.reads])
    assert (got[0] - wanted[0]).norm() <= relative_error(torch.float32) * wanted[0].norm()
