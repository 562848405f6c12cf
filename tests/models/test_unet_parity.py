"""The denoiser against numbers of the public code, run on tiny networks of its three kinds.

`out` is float32 and `out_fp64` float64; the weights follow a rule of their names, so none are
stored. The float64 comparison is the one that sees a wrong epsilon.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from turbo4d.models.config import SV4DConfig
from turbo4d.models.random_weights import fill_random
from turbo4d.models.transformer import SpatialBlock
from turbo4d.models.unet import SV4DUNet

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CASES = ("sv4d_tiny", "sv4d2_tiny", "sv4d2_8views_tiny")
FULL_SIZE = ("sv4d", "sv4d2", "sv4d2_8views")


def read_json(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def key_shape_sha256(model: nn.Module) -> str:
    lines = [
        f"{key}:{'x'.join(str(size) for size in value.shape)}"
        for key, value in model.state_dict().items()
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


@functools.cache
def network(case: str) -> SV4DUNet:
    model = SV4DUNet(SV4DConfig(**read_json(case)["constructor"])).eval()
    fill_random(model)
    return model


@functools.cache
def tensors(case: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{case}.safetensors")


def inputs(case: str, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    held = tensors(case).items()
    given: dict[str, Any] = {key[3:]: value.to(dtype) for key, value in held if key[:3] == "in."}
    return {**given, "num_video_frames": read_json(case)["num_video_frames"]}


def call(model: nn.Module, arguments: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return model(**arguments)


def relative_l2(got: Tensor, wanted: Tensor) -> float:
    return ((got - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("case", CASES)
def test_float32_agrees(case: str) -> None:
    got, wanted = call(network(case), inputs(case)), tensors(case)["out"]
    assert got.dtype == torch.float32
    assert relative_l2(got, wanted) <= 1e-5
    torch.testing.assert_close(got, wanted, atol=3e-5, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_float64_agrees(case: str) -> None:
    model = SV4DUNet(network(case).config, dtype=torch.float64).eval()
    fill_random(model)
    got, wanted = call(model, inputs(case, torch.float64)), tensors(case)["out_fp64"]
    assert got.dtype == torch.float64
    assert relative_l2(got, wanted) <= 1e-9
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_the_public_ones(case: str) -> None:
    model, golden = network(case), read_json(case)
    assert len(model.state_dict()) == golden["tensors"]
    assert sum(parameter.numel() for parameter in model.parameters()) == golden["params"]
    assert key_shape_sha256(model) == golden["key_shape_sha256"]


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_parameters_are_the_public_ones(name: str) -> None:
    golden = read_json("full_size")[name]
    model = SV4DUNet(SV4DConfig.named(name), device="meta")
    assert len(model.state_dict()) == golden["tensors"]
    assert sum(parameter.numel() for parameter in model.parameters()) == golden["params"]
    assert key_shape_sha256(model) == golden["key_shape_sha256"]


@pytest.mark.parametrize("name", FULL_SIZE)
def test_named_configurations_are_the_public_files(name: str) -> None:
    golden = read_json("full_size")[name]
    stated = {
        **golden["constructor"],
        "spatial_transformer_attn_type": "softmax",
        "frames": golden["n_time"],
        "views": golden["n_view"],
    }
    assert SV4DConfig(**stated) == SV4DConfig.named(name)


def test_tiny_is_the_golden_network() -> None:
    golden = read_json("sv4d_tiny")
    declared = SV4DConfig(**golden["constructor"], frames=3, views=4, latent_size=16)
    assert SV4DConfig.named("tiny") == declared


@pytest.mark.parametrize("case", ["sv4d_tiny", "sv4d2_tiny"])
def test_weights_follow_the_rule(case: str) -> None:
    weights = network(case).state_dict()
    for key, (first, total, l2) in read_json(case)["weight_check"].items():
        value = weights[key].double()
        assert math.isclose(value.flatten()[0].item(), first, abs_tol=1e-5), key
        assert math.isclose(value.sum().item(), total, abs_tol=1e-4), key
        assert math.isclose(value.norm().item(), l2, rel_tol=1e-5), key


@pytest.mark.parametrize("name", ["cond_motion", "image_only_indicator", "cam", "time_step"])
def test_what_the_public_network_ignores_has_no_effect(name: str) -> None:
    arguments = inputs("sv4d_tiny")
    altered = {**arguments, name: torch.full((24,), 7.0)}
    network_ = network("sv4d_tiny")
    assert torch.equal(call(network_, altered), call(network_, arguments))


@pytest.mark.parametrize("name", ["x", "timesteps", "context", "y", "cond_view"])
def test_every_other_input_has_an_effect(name: str) -> None:
    arguments = inputs("sv4d_tiny")
    altered = {**arguments, name: arguments[name] + 0.5}
    network_ = network("sv4d_tiny")
    assert relative_l2(call(network_, altered), call(network_, arguments)) > 1e-3


def test_a_declared_geometry_changes_nothing() -> None:
    declared = SV4DUNet(SV4DConfig.named("tiny")).eval()
    fill_random(declared)
    assert declared.turbo4d_geometry == {"views": 4, "frames": 3}
    assert network("sv4d_tiny").turbo4d_geometry == {}
    arguments = inputs("sv4d_tiny")
    assert torch.equal(call(declared, arguments), call(network("sv4d_tiny"), arguments))


def test_single_key_attention_leaves_its_queries_and_keys_dead() -> None:
    model = SV4DUNet(network("sv4d2_tiny").config).eval()
    fill_random(model)
    blocks = [module for module in model.modules() if isinstance(module, SpatialBlock)]
    dead = [
        parameter
        for block in blocks
        for module in (block.attn2.to_q, block.attn2.to_k, block.norm2)
        for parameter in module.parameters()
    ]
    assert len(dead) == 84
    with torch.no_grad():
        for parameter in dead:
            parameter.zero_()
    arguments = inputs("sv4d2_tiny")
    assert torch.equal(call(model, arguments), call(network("sv4d2_tiny"), arguments))
