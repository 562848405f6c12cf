"""One graph per kind of step: the captured one for plan none, and what each action makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue
from turbo4d.compiler.show import graph_text
from turbo4d.compiler.specialise import Variant, specialise
from turbo4d.models.scm import SCMModule
from turbo4d.runtime.action import BYPASS, REUSE, Action
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.denoisers import captured
from tests.support import nodes_of

SDPA = torch.ops.aten.scaled_dot_product_attention.default
NONE = VariantKey((), (), exact=False)


@pytest.fixture(autouse=True)
def _derive_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURBO4D_VERIFY", "full")


def key(
    writes: Sequence[str] = (),
    actions: Mapping[str, Action] | None = None,
    *,
    exact: bool = False,
) -> VariantKey:
    return VariantKey(tuple(sorted((actions or {}).items())), tuple(sorted(writes)), exact)


def chains(model: str = "mini") -> list[str]:
    return [region.name for region in captured(model)[2].regions if region.kind == "chain"]


def every(action: Action, kind: str = "chain") -> VariantKey:
    regions = captured("mini")[2].regions
    return key(actions={r.name: action for r in regions if r.kind == kind})


def run(variant: Variant, slots: Sequence[Tensor] = ()) -> tuple[Tensor, Sequence[Tensor]]:
    _, _, analysis, args = captured("mini")
    held = EagerPrologue(exact_form(analysis).prologue)(args) if variant.key.exact else ()
    (output,), slots_out = EagerEngine(variant)(args, held, slots)
    return output, slots_out


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("mini", torch.float32), ("tiny", torch.bfloat16), ("nano", torch.bfloat16)],
)
def test_plan_none_is_the_captured_graph(name: str, dtype: torch.dtype) -> None:
    model, call, analysis, args = captured(name, dtype)
    variant = specialise(analysis, NONE)
    assert graph_text(variant.module.graph) == graph_text(analysis.capture.module.graph)
    assert variant.arg_indices == tuple(range(len(args)))
    assert variant.reports == ()
    (output,), slots = EagerEngine(variant)(args, (), ())
    with torch.no_grad():
        assert torch.equal(output, model(**call))
    assert slots == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_exact_variant_takes_values_of_the_prologue(dtype: torch.dtype) -> None:
    model, call, analysis, args = captured("mini", dtype)
    variant = specialise(analysis, key(exact=True))
    crossed = [site for site in analysis.sites if site.key_tokens == 1]
    assert len(crossed) == 3 * len(chains())
    assert len(nodes_of(variant.module.graph, SDPA)) == len(analysis.sites) - len(crossed)
    assert len(variant.arg_indices) < len(args)
    prologue = exact_form(analysis).prologue
    assert variant.prologue_indices == tuple(range(len(prologue.names)))
    (output,), _ = EagerEngine(variant)(args, EagerPrologue(prologue)(args), ())
    with torch.no_grad():
        expected = model(**call)
    tolerance = 2e-6 if dtype == torch.float32 else 2e-2
    assert (output - expected).abs().max() <= tolerance * expected.abs().max()


def test_a_variant_takes_only_the_values_that_it_reads() -> None:
    analysis = captured("mini")[2]
    variant = specialise(analysis, key(actions={chains()[0]: REUSE}, exact=True))
    full = specialise(analysis, key(exact=True))
    assert set(variant.prologue_indices) < set(full.prologue_indices)
    names = [node.name for node in variant.module.graph.find_nodes(op="placeholder")]
    held = exact_form(analysis).prologue.names
    taken = [f"prologue_{held[i]}" for i in variant.prologue_indices]
    first = len(variant.arg_indices)
    assert names[first : first + len(taken)] == taken
    assert names[first + len(taken) :] == ["slot_stack_0_chain"]


def test_recording_changes_no_output() -> None:
    plain, _ = run(specialise(captured("mini")[2], NONE))
    names = sorted(region.name for region in captured("mini")[2].regions)
    variant = specialise(captured("mini")[2], key(names))
    output, slots = run(variant)
    assert torch.equal(output, plain)
    assert variant.writes == tuple(names)
    regions = {region.name: region for region in captured("mini")[2].regions}
    for name, slot in zip(names, slots, strict=True):
        region = regions[name]
        assert (tuple(slot.shape), slot.dtype) == (region.slot_shape, region.slot_dtype)
        assert slot.untyped_storage().nbytes() == region.slot_bytes
    held = [output, *slots]
    assert len({tensor.untyped_storage().data_ptr() for tensor in held}) == len(held)


@pytest.mark.parametrize("kind", ["block", "chain", "core"])
def test_reuse_with_the_same_inputs_is_the_full_computation(kind: str) -> None:
    """To the bit, where what is added is what was added; a block's difference rounds once more."""
    analysis = captured("mini")[2]
    reading = specialise(analysis, every(REUSE, kind))
    writing = specialise(analysis, key(reading.reads, exact=True))
    full, written = run(writing)
    slots = dict(zip(writing.writes, written, strict=True))
    output, _ = run(reading, [slots[name] for name in reading.reads])
    rounding = 2e-6 if kind == "block" else 0
    torch.testing.assert_close(output, full, atol=rounding, rtol=0)
    changed, _ = run(reading, [slots[name] + 1 for name in reading.reads])
    assert not torch.equal(changed, full)


def test_reuse_skips_what_the_slot_stands_for() -> None:
    analysis = captured("mini")[2]
    whole = len(analysis.capture.module.graph.nodes)
    chained, core = (specialise(analysis, every(REUSE, kind)) for kind in ("chain", "core"))
    assert nodes_of(chained.module.graph, SDPA) == []
    assert len(chained.module.graph.nodes) < whole / 2
    # What is left of the whole network is its last convolution.
    assert len(nodes_of(core.module.graph, torch.ops.aten.conv2d.default)) == 1
    assert len(core.arg_indices) == 2


def reference(monkeypatch: pytest.MonkeyPatch, forward: Callable[..., Tensor]) -> Tensor:
    """The plain module, with the forward of its S-C-M modules replaced."""
    model, call, _, _ = captured("mini")
    monkeypatch.setattr(SCMModule, "forward", forward)
    with torch.no_grad():
        output = model(**call)
    monkeypatch.undo()
    return output


def test_reused_chains_are_what_the_modules_would_add(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = captured("mini")[2]
    recorded = run(specialise(analysis, key(chains())))[1]
    slots = dict(zip(sorted(chains()), recorded, strict=True))
    plain, residuals = SCMModule.forward, list[Tensor]()

    def watched(self: SCMModule, x: Tensor, *rest: object) -> Tensor:
        y = plain(self, x, *rest)  # type: ignore[arg-type]
        residuals.append(y - x)
        return y

    reference(monkeypatch, watched)
    for name, residual in zip(chains(), residuals, strict=True):
        torch.testing.assert_close(slots[name], residual, atol=2e-6, rtol=1e-5)

    # Other values than those of this step, as at a later step.
    later = {name: slot * 0.9 + 0.01 for name, slot in slots.items()}
    order = iter(chains())
    expected = reference(monkeypatch, lambda self, x, *rest: x + later[next(order)])
    variant = specialise(analysis, every(REUSE))
    output, _ = run(variant, [later[name] for name in variant.reads])
    assert torch.equal(output, expected)


def test_bypassed_chains_are_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = specialise(captured("mini")[2], every(BYPASS))
    output, _ = run(variant)
    assert torch.equal(output, reference(monkeypatch, lambda self, x, *rest: x))
    assert variant.reads == ()


def test_neighbouring_regions_are_bypassed_together() -> None:
    """The camera block's exit is the motion block's entry."""
    analysis = captured("mini")[2]
    blocks = [region for region in analysis.regions if region.kind == "block"]
    moving = [r.name for r in blocks if r.name.endswith((".camera", ".motion"))]
    assert {r.exit for r in blocks} & {r.entry for r in blocks}
    both = specialise(analysis, key(actions=dict.fromkeys(moving, BYPASS)))
    assert len(nodes_of(both.module.graph, SDPA)) == 2 * len(chains())


def test_reuse_mixes_with_bypass_and_record(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = captured("mini")[2]
    first, second, third, fourth = chains()
    slot = torch.randn_like(run(specialise(analysis, key([second])))[1][0])
    actions = {first: BYPASS, second: REUSE, third: BYPASS}
    variant = specialise(analysis, key([fourth, "core"], actions, exact=True))
    assert (variant.reads, variant.writes) == ((second,), tuple(sorted([fourth, "core"])))
    output, written = run(variant, [slot])
    plain, counted = SCMModule.forward, iter(range(4))

    def forward(self: SCMModule, x: Tensor, *rest: object) -> Tensor:
        index = next(counted)
        if index == 1:
            return x + slot
        return plain(self, x, *rest) if index == 3 else x  # type: ignore[arg-type]

    # Only the fourth chain is computed, in its exact form.
    torch.testing.assert_close(output, reference(monkeypatch, forward), atol=2e-6, rtol=1e-5)
    assert len(written) == 2


def test_the_captured_graph_stays_as_it_is() -> None:
    analysis = captured("mini")[2]
    before = graph_text(analysis.capture.module.graph)
    names = [node.name for node in analysis.capture.module.graph.nodes]
    specialise(analysis, every(REUSE))
    specialise(analysis, key(chains(), exact=True))
    assert graph_text(analysis.capture.module.graph) == before
    assert [node.name for node in analysis.capture.module.graph.nodes] == names


def test_an_engine_holds_no_tensor() -> None:
    """Weights come in at every call: one copy, the module's, whatever the number of variants."""
    model, _, analysis, args = captured("mini")
    for chosen in (NONE, key(chains()), every(REUSE)):
        variant = specialise(analysis, chosen)
        assert list(variant.module.state_dict()) == []
        held = [value for value in vars(variant.module).values() if isinstance(value, Tensor)]
        assert held == []
        picked = EagerEngine(variant)._pick(args)
        assert all(a is args[i] for a, i in zip(picked, variant.arg_indices, strict=True))
    owned = {parameter.data_ptr() for parameter in model.parameters()}
    rows = zip(analysis.capture.table, args, strict=True)
    assert {tensor.data_ptr() for row, tensor in rows if row.kind == "weight"} == owned


REFUSED = [
    (
        key(actions={"stack.2.chian": REUSE}),
        "region 'stack.2.chian' is unknown to this model; it has 18 regions: 'core', "
        "'stack.0.camera', 'stack.0.chain', 'stack.0.motion', 'stack.0.spatial', "
        "'stack.1.camera', 'stack.1.chain', 'stack.1.motion', .... Did you mean 'stack.2.chain'?",
    ),
    (
        key(actions={"core": REUSE, "stack.2.chain": REUSE}),
        "region 'stack.2.chain' is to be reuse inside 'core', whose action is reuse, so it is not "
        "executed; leave one of the two out.",
    ),
    (
        key(["stack.2.camera"], {"stack.2.chain": BYPASS}),
        "region 'stack.2.camera' is to be written inside 'stack.2.chain', whose action is bypass, "
        "so it is not executed; leave one of the two out.",
    ),
    (
        key(["core"], {"core": REUSE}),
        "region 'core' is to be written where its action is reuse; only a region that is computed "
        "can be written.",
    ),
    (
        key(actions={"stack.2.chain": Action("prune", keep=0.5)}),
        "region 'stack.2.chain' is to be pruned and cannot be: its attentions are camera, motion, "
        "spatial; wanted one of spatial, camera, motion. Compute or reuse it.",
    ),
    (
        key(actions={"stack.2.camera": Action("prune", keep=0.5)}),
        "the variant reads relevance []; its pruned regions follow "
        "['stack.2.spatial.relevance']. Name those.",
    ),
    (
        key(["stack.2.chain.relevance"]),
        "region 'stack.2.chain.relevance' is unknown to this model; it has 18 regions: 'core', "
        "'stack.0.camera', 'stack.0.chain', 'stack.0.motion', 'stack.0.spatial', 'stack.1.camera', "
        "'stack.1.chain', 'stack.1.motion', .... Did you mean 'stack.2.chain'?",
    ),
    (
        key(["stack.2.spatial.relevance"], {"stack.2.spatial": REUSE}),
        "region 'stack.2.spatial.relevance' is to be written where its action is reuse; only a "
        "region that is computed can be written.",
    ),
]


@pytest.mark.parametrize(("chosen", "text"), REFUSED, ids=range(len(REFUSED)))
def test_a_key_without_a_graph_is_refused(chosen: VariantKey, text: str) -> None:
    with pytest.raises(PlanError) as caught:
        specialise(captured("mini")[2], chosen)
    assert str(caught.value) == text


def test_graphs_are_dumped_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURBO4D_DUMP", str(tmp_path))
    chosen = key(["core"], {"stack.2.chain": REUSE}, exact=True)
    specialise(captured("mini")[2], chosen)
    folder = tmp_path / chosen.name
    assert sorted(path.name for path in folder.iterdir()) == [
        "00.capture.txt",
        *(
            f"{number:02}.{name}.{part}"
            for number, name in enumerate(("record-slot", "reuse-region"), start=1)
            for part in ("after.txt", "before.txt", "diff")
        ),
        "report.json",
    ]
    rows = json.loads((folder / "report.json").read_text())
    assert [row["pass"].partition("(")[0] for row in rows] == [
        "RecordSlot",
        "ReuseRegion",
    ]
    assert "slot_stack_2_chain" in (folder / "02.reuse-region.diff").read_text()
    assert str(tmp_path) not in (folder / "02.reuse-region.after.txt").read_text()


def test_memory_is_freed_after_its_last_use() -> None:
    """The generated code drops each value; the peak is then the plain module's."""
    variant = specialise(captured("mini")[2], NONE)
    assert isinstance(variant.module, fx.GraphModule)
    assert variant.module.code.count(" = None\n") > len(variant.arg_indices)
