"""prune-tokens: fires, refuses, idles, composes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.verify import verify
from turbo4d.passes import PassError, PruneTokens, RecordSlot, ReuseRegion
from turbo4d.passes.base import returned

from tests.passes.stream import Attend, make_stream
from tests.support import assert_rewrite, flat_args, fork, nodes_of

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
FIRST = PruneTokens(
    "first", "linear", "linear_4", "slot_first", difference=False, source="first",
    relevance="slot_first_relevance", kept=3, layout=("I*2", "T*5", "*8"), rows="I*2", pooled="",
)  # fmt: skip
BOTH = replace(FIRST, region="both", value="add_1", slot="slot_both", difference=True)


def chosen(relevance: Tensor, count: int) -> Tensor:
    """[..., N] to a mask: the largest, of equal ones the first."""
    mask = torch.zeros(relevance.shape, dtype=torch.bool)
    for row, marks in zip(relevance.flatten(0, -2), mask.flatten(0, -2), strict=True):
        ranked = sorted(range(len(row)), key=lambda at: (-float(row[at]), at))
        marks[ranked[:count]] = True
    return mask


def relevance(rows: int, tokens: int = 5) -> Tensor:
    return torch.randn(rows, tokens, generator=torch.Generator().manual_seed(3))


def test_queries_are_pruned_and_keys_are_not() -> None:
    model, inputs = make_stream()
    slot, matters = torch.randn(2, 5, 8).double(), relevance(2)
    with torch.no_grad():
        hidden = model.into(inputs[0])
        hidden = hidden + torch.where(chosen(matters, 3)[..., None], model.first(hidden), slot)
        expected = model.out(hidden + model.cross(hidden, inputs[1]))
    done = assert_rewrite(
        FIRST,
        model,
        inputs,
        fires=1,
        gone={SDPA: 0, aten.linear.default: 0},
        # The norm is needed twice: of the kept tokens for queries, of all for keys and values.
        stays={
            aten.layer_norm.default: 3,
            aten.index_select.default: 1,
            aten.index_copy.default: 1,
        },
        golden="prune_tokens",
        expected=[expected],
        slots=[slot, matters],
        atol=0,
        rtol=0,
    )
    [site, _] = nodes_of(done.module.graph, SDPA)
    shapes = [tuple(operand.meta["val"].shape) for operand in site.all_input_nodes]
    assert shapes == [(2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)]
    assert "3 tokens by relevance of first" in done.report.rewritten[0]


def test_a_difference_is_added_to_the_entry_of_the_others() -> None:
    model, inputs = make_stream()
    slot, matters = torch.randn(2, 5, 8).double(), relevance(2)
    with torch.no_grad():
        entry = model.into(inputs[0])
        mask = chosen(matters, 3)[..., None]
        after = entry + model.first(entry)
        made = after + model.cross(after, inputs[1])
        expected = model.out(torch.where(mask, made, entry + slot))
    assert_rewrite(
        BOTH,
        model,
        inputs,
        fires=1,
        gone={SDPA: 0},
        stays={aten.index_copy.default: 1, aten.index_select.default: 1},
        golden=None,
        expected=[expected],
        slots=[slot, matters],
        atol=0,
        rtol=0,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_all_tokens_kept_is_the_region_computed_to_the_bit(dtype: torch.dtype) -> None:
    model, inputs = make_stream(dtype=dtype)
    with torch.no_grad():
        expected = model(*inputs)
    for pass_, stays in ((FIRST, 1), (BOTH, 1)):
        assert_rewrite(
            replace(pass_, kept=5), model, inputs, fires=1, gone={}, expected=[expected],
            stays={aten.index_copy.default: stays}, golden=None, atol=0, rtol=0,
            slots=[torch.randn(2, 5, 8).to(dtype), relevance(2)],
        )  # fmt: skip


def test_equal_relevance_keeps_the_first_and_infinite_the_largest() -> None:
    model, inputs = make_stream()
    slot = torch.randn(2, 5, 8).double()
    matters = torch.tensor([[1.0, 1, 1, 1, 1], [0.0, float("inf"), 0, 0, 1]])
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    RecordSlot("first", "linear_4")(gm)
    FIRST(gm)
    with torch.no_grad():
        _, value = gm(*flat_args(capture, inputs), slot, matters)
        computed = model.first(model.into(inputs[0]))
    mask = torch.tensor([[True, True, True, False, False], [True, True, False, False, True]])
    assert torch.equal(value, torch.where(mask[..., None], computed, slot))


class Groups(nn.Module):
    """Attention over V images of each token, with values from outside in several shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = Attend(8, 8)
        self.places: Tensor
        self.view_offset: Tensor
        self.each: Tensor
        self.register_buffer("places", torch.randn(6, 8))
        self.register_buffer("view_offset", torch.randn(3, 1, 8))
        self.register_buffer("each", torch.randn(2 * 6, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        """[(B V), N, C] of 2, 3, 6 and 8 to the same."""
        x = x.sin()
        grid = x.view(2, 3, 6, 8) + self.view_offset + self.places
        rows = grid.permute(0, 2, 1, 3).reshape(12, 3, 8)
        rows = rows + self.attend(rows) + self.each
        return (0.5 * x + 0.5 * rows.view(2, 6, 3, 8).permute(0, 2, 1, 3).reshape(6, 6, 8)).cos()


GROUPS = PruneTokens(
    "groups", "sin", "add_4", "slot", difference=True, source="s", relevance="says", kept=2,
    layout=("I*6", "T*6", "*8"), rows="I*6", pooled="I*3",
)  # fmt: skip


@pytest.mark.parametrize("kept", [1, 2, 6])
def test_whole_groups_are_kept_with_what_they_are_given(kept: int) -> None:
    torch.manual_seed(0)
    model, x = Groups().double().eval(), torch.randn(6, 6, 8).double()
    slot, matters = torch.randn(6, 6, 8).double(), relevance(6, 6)
    mask = chosen(matters.view(2, 3, 6).mean(1), kept)[:, None].expand(2, 3, 6).reshape(6, 6, 1)
    with torch.no_grad():
        computed = model(x)
        expected = torch.where(mask, computed, (x.sin() + slot).cos())
    done = assert_rewrite(
        replace(GROUPS, kept=kept), model, [x], fires=1, gone={SDPA: 0}, expected=[expected],
        # The entry; the places of each token, to which every group adds its own choice; `each`.
        stays={aten.index_select.default: 3}, golden=None, slots=[slot, matters], atol=0, rtol=0,
    )  # fmt: skip
    [site] = nodes_of(done.module.graph, SDPA)
    assert site.meta["val"].shape == (2 * kept, 2, 3, 4)


def along(function: Callable[[Tensor, Tensor], Tensor], *shape: int) -> nn.Module:
    """`entry + function(entry, outside)` of an entry [2, 5, 4]."""

    class Along(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(1)
            self.outside: Tensor
            self.register_buffer("outside", torch.randn(shape or (4,), generator=generator))

        def forward(self, x: Tensor) -> Tensor:
            entry = x.sin()
            return (entry + function(entry, self.outside)).tanh()

    return Along().double().eval()


KEPT_APART: dict[str, nn.Module] = {
    "scale": along(lambda x, w: x * w),
    "by token": along(lambda x, w: x * w, 5, 1),
    "by token and image": along(lambda x, w: w - x, 2, 5, 4),
    "one image for all": along(lambda x, w: torch.where(w > 0, x, w), 1, 5, 4),
    "matrix": along(lambda x, w: x @ w, 4, 4),
    "rms norm": along(lambda x, w: x * x.pow(2).mean(-1, keepdim=True).rsqrt() * w),
    "sum without a place": along(lambda x, w: x.sum(-1).unsqueeze(-1) * w),
    "softmax": along(lambda x, w: x.softmax(-1) * w),
    "channels apart": along(lambda x, w: torch.cat([x[..., 2:], x[..., :2]], -1) * w),
    "joined with outside": along(lambda x, w: torch.cat([x[..., 2:], w], -1), 2, 5, 2),
    "one of two": along(lambda x, w: torch.cat([x.reshape(2, 5, 2, 2)[:, :, 1]] * 2, -1) * w),
    "rows": along(lambda x, w: (x.reshape(10, 4) * w).reshape(2, 5, 4), 10, 1),
    "added product": along(lambda x, w: torch.addmm(w[0], x.reshape(10, 4), w).reshape(x.shape),
                           4, 4),
    "images behind tokens": along(lambda x, w: (x.permute(1, 2, 0) * w).permute(2, 0, 1), 5, 4, 2),
    "group norm of rows": along(lambda x, w: torch.group_norm(x.reshape(10, 4), 2, w)
                                .reshape(x.shape)),
}  # fmt: skip


def pass_for(model: nn.Module, x: Tensor) -> PruneTokens:
    [last] = returned(capture_export(model, (x,)).module.graph)
    value = last.all_input_nodes[0].name
    return replace(FIRST, entry="sin", value=value, layout=("I*2", "T*5", "*4"), difference=True)


@pytest.mark.parametrize("name", sorted(KEPT_APART))
def test_what_works_token_by_token_is_pruned(name: str) -> None:
    model, x = KEPT_APART[name], torch.randn(2, 5, 4).double()
    slot, matters = torch.randn(2, 5, 4).double(), relevance(2)
    with torch.no_grad():
        kept, rest = model(x), (x.sin() + slot).tanh()
    expected = torch.where(chosen(matters, 3)[..., None], kept, rest)
    assert_rewrite(
        pass_for(model, x), model, [x], fires=1, gone={}, stays={}, golden=None,
        expected=[expected], slots=[slot, matters], atol=0, rtol=0,
    )  # fmt: skip


MIXED: dict[str, tuple[nn.Module, str]] = {
    "norm over tokens": (along(lambda x, w: torch.layer_norm(x, [5, 4]) * w),
                         "%layer_norm is aten.layer_norm.default: it normalises over the tokens"),
    "group norm": (along(lambda x, w: torch.group_norm(x, 1)),
                   "%group_norm is aten.group_norm.default: it normalises over the tokens"),
    "softmax": (along(lambda x, w: x.softmax(1)),
                "%softmax is aten.softmax.int: it normalises over the tokens"),
    "mean": (along(lambda x, w: x.mean(1, keepdim=True)),
             "%mean is aten.mean.dim: it sums the tokens"),
    "shift": (along(lambda x, w: torch.cat([x[:, 1:], x[:, :1]], 1)),
              "%slice_1 is aten.slice.Tensor: it slices the tokens"),
    "turned": (along(lambda x, w: (x.reshape(2, 20).reshape(2, 4, 5)).permute(0, 2, 1)),
               "%reshape_1 is aten.reshape.default: it cuts T*5 at 4"),
    "matrix": (along(lambda x, w: (x.mT @ w).mT, 5, 5),
               "%matmul is aten.matmul.default: it multiplies the tokens"),
    "outer": (along(lambda x, w: (x[:, :, None, 0] * x[:, None, :, 1]).sum(-1)[..., None]),
              "%mul is aten.mul.Tensor: it puts tokens against tokens"),
    "unknown": (along(lambda x, w: x.flip(2)),
                "%flip is aten.flip.default: no rule says that it keeps tokens apart"),
    "other order": (along(lambda x, w: x.reshape(2, 5, 4) + x.permute(1, 0, 2).reshape(2, 5, 4)),
                    "%reshape is aten.reshape.default: it cuts T*5 at 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MIXED))
def test_refuses_what_mixes_tokens(name: str) -> None:
    (model, fact), x = MIXED[name], torch.randn(2, 5, 4).double()
    gm = fork(capture_export(model, (x,)).module)
    with pytest.raises(PassError) as caught:
        pass_for(model, x)(gm)
    assert fact in str(caught.value)
    assert str(caught.value).endswith("pruning wants tokens that stay apart. Reuse the region.")


def test_refuses_images_that_the_relevance_does_not_tell_apart() -> None:
    torch.manual_seed(0)
    model, x = Groups().double().eval(), torch.randn(6, 6, 8).double()
    for rows, layout, fact in (
        ("I/3*2", GROUPS.layout, "its sequence runs over images that the relevance does not"),
        ("I*6", ("*6", "T*6", "*8"), "what comes in does not tell images I/3*2 apart"),
        ("I/2*3 I*2", GROUPS.layout, "its images are cut at 2 and at 3"),
    ):
        gm = fork(capture_export(model, (x,)).module)
        with pytest.raises(PassError, match=r"^prune-tokens at %add_4 \(groups\): ") as caught:
            replace(GROUPS, rows=rows, layout=layout)(gm)
        assert fact in str(caught.value)


def test_refuses_an_unknown_node_and_a_slot_that_is_there() -> None:
    model, inputs = make_stream()
    gm = fork(capture_export(model, inputs).module)
    with pytest.raises(PassError, match=r"^prune-tokens at %nowhere \(first\): the graph has no"):
        replace(FIRST, entry="nowhere")(gm)
    FIRST(gm)
    with pytest.raises(PassError, match=r"^prune-tokens at %linear_8 \(cross\): the graph already"):
        replace(FIRST, region="cross", entry="add", value="linear_8")(gm)


def test_idles_never_but_leaves_other_calls_alone() -> None:
    """It has no option that selects nothing; what lies outside the region keeps every call."""
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    FIRST(gm)
    outside = ("layer_norm_1", "linear_5", "scaled_dot_product_attention_1", "linear_9")
    for name in outside:
        before, after = (
            next(node for node in graph.nodes if node.name == name)
            for graph in (capture.module.graph, gm.graph)
        )
        assert before.format_node() == after.format_node()


@pytest.mark.parametrize("turn", [1, -1])
def test_composes_with_a_region_that_begins_where_it_ends(turn: int) -> None:
    model, inputs = make_stream()
    capture = capture_export(model, inputs)
    gm = fork(capture.module)
    passes = [replace(BOTH, value="add"), ReuseRegion("cross", "add_1", "slot_cross", "add")]
    for pass_ in passes[::turn]:
        pass_(gm)
    names = [node.name for node in gm.graph.find_nodes(op="placeholder")]
    verify(gm, inputs=names, full=True)
    slots = {
        "slot_both": torch.randn(2, 5, 8).double(),
        "slot_cross": torch.randn(2, 5, 8).double(),
        "slot_first_relevance": relevance(2),
    }
    with torch.no_grad():
        (got,) = gm(
            *flat_args(capture, inputs), *(slots[name] for name in names[len(capture.table) :])
        )
        entry = model.into(inputs[0])
        mask = chosen(slots["slot_first_relevance"], 3)[..., None]
        hidden = torch.where(mask, entry + model.first(entry), entry + slots["slot_both"])
        expected = model.out(hidden + slots["slot_cross"])
    assert torch.equal(got, expected)


def test_composes_with_itself_by_one_relevance() -> None:
    model, inputs = make_stream()
    gm = fork(capture_export(model, inputs).module)
    replace(FIRST, region="cross", entry="add", value="linear_8", slot="slot_cross")(gm)
    FIRST(gm)
    names = [node.name for node in gm.graph.find_nodes(op="placeholder")]
    assert names[-3:] == ["slot_cross", "slot_first_relevance", "slot_first"]
    verify(gm, inputs=names, full=True)
