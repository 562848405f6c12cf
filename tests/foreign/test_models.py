"""Ten denoisers of diffusers, which nothing of ours was written for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("diffusers")

from turbo4d.compiler.costs import variant_flops
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.lower.onnx_export import graph_reasons
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.action import REUSE
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.foreign_models import FACTORIES

from tests.foreign.compiled import Compiled, compiled

STEPS = 12
# From the configurations. A UNet has one transformer in its one attending level on the way down,
# one in the middle and two on the way up; the other levels have none.
TRANSFORMERS = 1 + 1 + 2
# ModelScope's temporal modules stand beside those, and one before the first level. AnimateDiff's
# stand beside every residual block, one on the way down and two on the way up of each level. Both
# attend over the frames twice.
STANDING = 1 + TRANSFORMERS
MODULES = 2 * (1 + 2) + 1
SITES = {
    # Each transformer is a spatial and a temporal one, both with the image's one key.
    "svd": {"spatial": TRANSFORMERS, "motion": TRANSFORMERS, "cross": 2 * TRANSFORMERS},
    "animatediff": {"spatial": TRANSFORMERS, "cross": TRANSFORMERS, "motion": 2 * MODULES},
    "modelscope": {"spatial": TRANSFORMERS, "cross": TRANSFORMERS, "motion": 2 * STANDING},
    "stable_diffusion": {"spatial": TRANSFORMERS, "cross": TRANSFORMERS},
    # Its context holds tokens of the image's latent beside the text.
    "i2vgen_xl": {"spatial": TRANSFORMERS, "reference": TRANSFORMERS, "motion": 2 * STANDING},
    # Three blocks each; Latte's are pairs; HunyuanVideo's are two of two streams and two of one.
    "cogvideox": {"joint": 3},
    "latte": {"spatial": 3, "cross": 3, "motion": 3},
    "wan": {"joint": 3, "cross": 3},
    "hunyuan_video": {"joint": 2 + 2},
    "ltx_video": {"joint": 3, "cross": 3},
}


@pytest.fixture(scope="module", params=FACTORIES)
def one(request: pytest.FixtureRequest) -> Iterator[Compiled]:
    """A model; the tests of one stand together, so each is compiled once."""
    with torch.no_grad():
        yield compiled(request.param)
    torch.compiler.reset()


def test_plan_none_is_the_plain_module_to_the_bit(one: Compiled) -> None:
    wanted = one.foreign.module(**one.foreign.inputs)[0]
    assert torch.equal(one.one_call("none"), wanted)
    exact = one.one_call("exact")
    # fp32, after a few dozen layers of width 32 and 64.
    assert (exact - wanted).norm() < 1e-5 * wanted.norm()


def test_every_attention_has_the_kind_that_the_architecture_says(one: Compiled) -> None:
    sites = one.analysis.sites
    assert Counter(site.kind for site in sites) == SITES[one.foreign.factory], [
        site.note for site in sites
    ]


def test_every_attention_over_the_sample_is_in_a_region(one: Compiled) -> None:
    analysis = one.analysis
    kinds = Counter(region.kind for region in analysis.regions)
    assert kinds["core"] == 1
    assert kinds["chain"] > 0
    assert kinds["level"] == (1 if "middle" in str(analysis.regions) else 0)
    assert all(site.region for site in analysis.sites)


def test_every_graph_of_it_can_be_written_as_onnx(one: Compiled) -> None:
    exact = exact_form(one.analysis)
    for graph in (one.analysis.capture.module, exact.module, exact.prologue.module):
        assert graph_reasons(graph) == ()


def test_a_preset_saves_operations_and_changes_nothing_where_nothing_changes(one: Compiled) -> None:
    outputs, calls = one.still(STEPS)
    assert calls.pop("prologue") == 1
    assert sum(calls.values()) == STEPS
    regions = one.analysis.regions
    # A transformer's blocks are nearly all of its core, so they are reused in place of it.
    kind = "core" if any(region.kind == "level" for region in regions) else "chain"
    names = sorted(region.name for region in regions if region.kind == kind)
    key = VariantKey(tuple((name, REUSE) for name in names), (), exact=True)
    assert {name for name in calls if "reuse" in name} == {key.name}
    assert calls[key.name] > STEPS / 3
    whole = sum(one.analysis.flops.values())
    assert variant_flops(specialise(one.analysis, key)) < 0.05 * whole
    for output in outputs[1:]:
        # Some slots hold the difference of two values, so they give them back up to rounding.
        assert (output - outputs[0]).norm() < 1e-5 * outputs[0].norm()
