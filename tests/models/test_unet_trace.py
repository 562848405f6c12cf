"""The denoiser as compilers see it: one graph, no in-place operators, no host sync, any door."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.export import export
from torch.fx.experimental.proxy_tensor import make_fx
from turbo4d.models.config import SV4DConfig
from turbo4d.models.example_inputs import DenoiserInputs, example_inputs
from turbo4d.models.random_weights import fill_random
from turbo4d.models.unet import SV4DUNet

# Every kind of part, once or twice: tracing costs by the operator.
TINY = replace(
    SV4DConfig.named("tiny"), channel_mult=(1, 1), attention_resolutions=(), latent_size=8
)
TINY2 = replace(TINY, use_camera_emb=True, separate_motion_merge_factor=True, use_3d_attention=True)
CONFIGS = pytest.mark.parametrize("config", [TINY, TINY2], ids=["tiny", "tiny2"])


@pytest.fixture(autouse=True)
def _forget_compiled_code() -> None:
    torch.compiler.reset()


def filled(config: SV4DConfig) -> tuple[SV4DUNet, DenoiserInputs]:
    model = SV4DUNet(config).eval()
    fill_random(model)
    return model, example_inputs(config, branches=1)


@CONFIGS
def test_compiles_as_one_graph_once_for_all_steps(config: SV4DConfig) -> None:
    model, arguments = filled(config)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        for level in (1.5, -0.5, -1.5):
            step = {**arguments, "timesteps": torch.full_like(arguments["timesteps"], level)}
            assert torch.equal(compiled(**step), model(**step))


@pytest.mark.parametrize(
    ("config", "strict"),
    [(TINY, False), (TINY2, False), (TINY2, True)],
    ids=["tiny", "tiny2", "tiny2-strict"],
)
def test_exports(config: SV4DConfig, strict: bool) -> None:
    model, arguments = filled(config)
    with torch.no_grad():
        program = export(model, (), dict(arguments), strict=strict)
        got, wanted = program.module()(**arguments), model(**arguments)
    assert torch.equal(got, wanted)
    sdpa = [
        node
        for node in program.graph.nodes
        if node.target is torch.ops.aten.scaled_dot_product_attention.default
    ]
    # Three blocks of two attentions in each, none taken apart.
    modules = sum(name.endswith(".proj_out") for name, _ in model.named_modules())
    assert len(sdpa) == 6 * modules


def test_exports_at_full_size_without_weights() -> None:
    config = SV4DConfig.named("sv4d")
    model = SV4DUNet(config, device="meta").eval()
    with torch.no_grad():
        program = export(model, (), dict(example_inputs(config, device="meta")), strict=False)
    (output,) = next(iter(reversed(program.graph.nodes))).args[0]
    assert output.meta["val"].shape == (80, 4, 72, 72)


@CONFIGS
def test_the_graph_is_functional_and_never_waits_for_the_host(config: SV4DConfig) -> None:
    model, arguments = filled(config)
    names = list(arguments)

    class Positional(nn.Module):
        def forward(self, *values: object) -> torch.Tensor:
            return model(**dict(zip(names, values, strict=True)))

    with torch.no_grad():
        graph = make_fx(Positional(), pre_dispatch=True)(*arguments.values()).graph
    operators = [node.target for node in graph.nodes if node.op == "call_function"]
    schemas = [target._schema for target in operators if hasattr(target, "_schema")]
    assert len(schemas) > 150
    assert {schema.name for schema in schemas if schema.is_mutable} == set()
    syncs = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}
    assert {schema.name for schema in schemas} & syncs == set()
