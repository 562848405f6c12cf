"""Which regions can be pruned and why others cannot; what it is predicted to gain."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.explain import Explanation, explain
from turbo4d.compiler.machine import Machine
from turbo4d.compiler.prune_gain import gains_of, prune_gain
from turbo4d.compiler.pruning import kept_count
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.action import Action
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.captures import analysed, build, exported


def how(name: str) -> dict[str, str]:
    """For each block and chain the source of its relevance, or why it has none."""
    return {
        region.name: region.pruning.source if region.pruning else region.unprunable
        for region in analysed(name).regions
        if region.kind in ("block", "chain")
    }


def test_each_block_of_sv4d_follows_the_spatial_attention_of_its_chain() -> None:
    found = how("chain")
    assert found == {
        "stack.0.chain": "its attentions are camera, motion, spatial; wanted one of spatial, "
        "camera, motion",
        **{f"stack.0.{kind}": "stack.0.spatial" for kind in ("spatial", "camera", "motion")},
    }
    blocks = {region.name: region.pruning for region in analysed("chain").regions}
    camera, motion = blocks["stack.0.camera"], blocks["stack.0.motion"]
    assert camera is not None
    assert motion is not None
    assert camera.layout == ("I/6*2", "I/2*3", "I*2", "T*64", "*32")
    assert (camera.pooled, motion.pooled) == ("I*2", "I/2*3")
    assert (camera.images, camera.tokens, camera.rows) == (12, 64, "I*12")
    assert camera.relevance_bytes == 12 * 64 * 4


def test_nearly_all_of_a_block_falls_with_its_tokens() -> None:
    """But for keys and values of a spatial one, and what is computed of the conditioning."""
    blocks = [region for region in analysed("sv4d_tree").regions if region.kind == "block"]
    assert blocks
    for region in blocks:
        assert region.pruning is not None, region.name
        share = region.pruning.flops / region.flops
        assert (0.7 if region.name.endswith("spatial") else 0.95) < share <= 1, region.name


def test_chains_of_a_video_unet_follow_the_spatial_one_before_them() -> None:
    found = how("video_unet")
    assert found["down.0.0.spatial"] == found["down.0.1.motion"] == "down.0.0.spatial"
    assert found["middle.1.motion"] == "middle.0.spatial"
    assert found["middle.0.chain"] == "the tokens lie in 2 dimensions of what comes in"


def test_attention_over_frames_and_tokens_at_once_is_refused() -> None:
    found = how("joint_dit")
    assert set(found.values()) == {
        "its attentions are joint; wanted one of spatial, camera, motion"
    }


class Video(nn.Module):
    """Frames in a stack, then one block over frames; before it, if asked, one over tokens."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.turbo4d_geometry = {"frames": 3, "views": 1}
        self.kind = kind
        self.into, self.out = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 1)
        self.level = nn.Linear(8, 8)
        self.parts = nn.ModuleList(nn.Linear(8, 24) for _ in range(2))

    def attend(self, x: torch.Tensor, part: int) -> torch.Tensor:
        q, k, v = self.parts[part](x).chunk(3, -1)
        mask = torch.zeros(x.shape[1], x.shape[1]) if self.kind == "mask" and not part else None
        mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], attn_mask=mask)
        return mixed[:, 0]

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        angles = t[:, None] * torch.arange(4, dtype=torch.float32).exp()
        h = self.into(x) + self.level(torch.cat([angles.sin(), angles.cos()], -1))[..., None, None]
        h = h.flatten(2).transpose(1, 2)
        if self.kind != "alone":
            h = h + self.attend(h, 0)
        rows = h.unflatten(0, (-1, 3)).transpose(1, 2).flatten(0, 1)
        entry = rows
        if self.kind == "shifted":
            rows = rows.roll(1, 0)
        rows = entry + self.attend(rows, 1)
        h = rows.unflatten(0, (-1, 16)).transpose(1, 2).flatten(0, 1)
        return self.out(h.transpose(1, 2).unflatten(2, (4, 4)))


@cache
def video(kind: str) -> Analysis:
    call = (torch.randn(6, 4, 4, 4), torch.rand(6))
    return analyse(capture_export(Video(kind).eval(), call))


def reason(kind: str) -> str:
    [region] = [one for one in video(kind).regions if any("motion" in s for s in one.sites)
                and one.kind in ("chain", "block")][-1:]  # fmt: skip
    return region.pruning.source if region.pruning else region.unprunable


def test_what_says_no_relevance_leaves_a_block_unprunable() -> None:
    assert reason("plain") in ("stack.0.chain", "stack.0.spatial")
    nothing = "no plain spatial attention over 16 tokens comes before it"
    assert reason("alone") == nothing
    assert reason("mask") == nothing


def test_a_call_that_moves_tokens_is_named() -> None:
    assert reason("shifted") == (
        "%roll is aten.roll.default: no rule says that it keeps tokens apart"
    )


@pytest.mark.parametrize(
    ("keep", "tokens", "count"),
    [(1.0, 16, 16), (0.5, 16, 8), (0.5, 15, 8), (0.7, 10, 7), (0.01, 16, 1), (1e-9, 5184, 1)],
)
def test_a_share_keeps_at_least_itself(keep: float, tokens: int, count: int) -> None:
    assert kept_count(keep, tokens) == count


def pruned(region: str, keep: float, *, exact: bool) -> VariantKey:
    action = Action("prune", keep=keep)
    return VariantKey(((region, action),), (), exact, ("stack.0.spatial.relevance",))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kind", ["spatial", "camera", "motion"])
def test_the_gain_is_what_the_variant_executes_less(kind: str, exact: bool) -> None:
    from turbo4d.compiler.costs import variant_flops
    from turbo4d.compiler.traffic import count_bytes

    analysis = analyse(exported("chain"))
    region = next(one for one in analysis.regions if one.name == f"stack.0.{kind}")
    whole = specialise(analysis, VariantKey((), (), exact))
    part = specialise(analysis, pruned(region.name, 0.5, exact=exact))
    gain = prune_gain(analysis, region, 0.5, exact=exact)
    assert (gain.kept, gain.tokens) == (32, 64)
    assert gain.flops_saved == variant_flops(whole) - variant_flops(part)
    less = count_bytes(whole.module.graph) - count_bytes(part.module.graph)
    assert gain.bytes_saved - gain.bytes_added == pytest.approx(less, rel=1e-9)
    assert region.pruning is not None
    if not exact:
        assert gain.flops_saved == pytest.approx(0.5 * region.pruning.flops)


def test_seconds_follow_the_rates_and_all_tokens_gain_nothing() -> None:
    analysis = analyse(exported("chain"))
    region = next(one for one in analysis.regions if one.name == "stack.0.camera")
    half, whole = (prune_gain(analysis, region, keep) for keep in (0.5, 1.0))
    assert half.seconds_saved(Machine("", 1.0, float("inf"), 0.0)) == half.flops_saved
    # A norm reads what it norms twice, which bytes alone do not say.
    moved = half.seconds_saved(Machine("", float("inf"), 1.0, 0.0))
    assert moved >= half.bytes_saved - half.bytes_added > 0
    assert whole.flops_saved == 0
    assert whole.seconds_saved(SLOW) < 0
    both = gains_of(analysis, pruned("stack.0.camera", 0.5, exact=True))
    assert both == (half,)


def test_a_gain_of_what_cannot_be_pruned_is_refused() -> None:
    analysis = analyse(exported("chain"))
    chain = next(one for one in analysis.regions if one.kind == "chain")
    with pytest.raises(
        PlanError, match=r"^region 'stack.0.chain' cannot be pruned: its attentions"
    ):
        prune_gain(analysis, chain, 0.5)


SLOW = Machine("a slow one", 1e9, 1e9, 0.0)


@cache
def explained() -> Explanation:
    module, call = build("chain")
    info = explain(module, (), call, plan="exact", levels=[4.0, 3.0, 2.0, 1.0])
    half, whole = Action("prune", keep=0.5), Action("prune", keep=1.0)
    rows = ({}, {"stack.0.camera": half}, {"stack.0.spatial": whole}, {"stack.0.camera": half})
    plan: Plan = replace(info.plan, name="p", streams={"main": rows}, max_age=3, max_variants=4)
    return explain(module, (), call, plan=plan, machine=SLOW)


def test_explain_says_what_each_cell_saves_and_where_it_loses_time() -> None:
    info = explained()
    [half, whole] = info.pruned
    assert (half.regions, half.steps, half.loses) == (("stack.0.camera",), (1, 3), "")
    assert whole.loses.startswith("prune(1.0) of 'stack.0.spatial' is predicted to lose ")
    assert whole.loses.endswith("Compute or reuse it, or keep fewer tokens.")
    text = str(info)
    assert whole.loses in text
    assert "32 of 64 tokens" in text
    assert "at 1, 3" in text
    slots = {row["region"]: row["bytes"] for row in info.to_json()["plan"]["slots"]}
    assert slots["stack.0.spatial.relevance"] == 12 * 64 * 4
    # Step 1 reads the relevance that step 0 wrote and writes it anew: both are held.
    assert sum(slots.values()) + slots["stack.0.spatial.relevance"] == info.check.peak_bytes
    found = info.to_json()["plan"]["pruned"]
    assert [row["regions"] for row in found] == [["stack.0.camera"], ["stack.0.spatial"]]
    assert found[1]["flops_saved"] == 0
    assert found[1]["seconds_saved"] < 0 < found[0]["seconds_saved"]
