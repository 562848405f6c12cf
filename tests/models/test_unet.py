"""What the denoiser promises beside its numbers: dtypes, gradients, cost, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from turbo4d.models.config import SV4DConfig
from turbo4d.models.errors import ConfigError, InputError
from turbo4d.models.example_inputs import example_inputs
from turbo4d.models.random_weights import fill_random
from turbo4d.models.unet import SV4DUNet

TINY = SV4DConfig.named("tiny")
TINY2 = replace(TINY, use_camera_emb=True, separate_motion_merge_factor=True, use_3d_attention=True)


class Recorder(TorchDispatchMode):
    """Keeps, for each operator, the floating dtypes that went in and came out."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, out))
        dtypes = {leaf.dtype for leaf in leaves if isinstance(leaf, Tensor)}
        floating = {dtype for dtype in dtypes if dtype.is_floating_point}
        self.seen.setdefault(func.overloadpacket.__name__, set()).update(floating)
        return out


def filled(config: SV4DConfig, dtype: torch.dtype = torch.float32) -> SV4DUNet:
    model = SV4DUNet(config, dtype=dtype).eval()
    fill_random(model)
    return model


@pytest.mark.parametrize("config", [TINY, TINY2], ids=["tiny", "tiny2"])
def test_float64_is_float64_throughout(config: SV4DConfig) -> None:
    model = filled(config, torch.float64)
    arguments = example_inputs(config, dtype=torch.float64)
    with torch.no_grad(), Recorder() as recorder:
        model(**arguments)
    narrow = {name for name, dtypes in recorder.seen.items() if dtypes - {torch.float64}}
    assert narrow == set()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes_norm_groups_in_float32(dtype: torch.dtype) -> None:
    exact = filled(TINY, torch.float64)
    with torch.no_grad():
        wanted = exact(**example_inputs(TINY, dtype=torch.float64))
        model, arguments = filled(TINY, dtype), example_inputs(TINY, dtype=dtype)
        with Recorder() as recorder:
            got = model(**arguments)
    assert got.dtype == dtype
    assert recorder.seen["native_group_norm"] == {torch.float32}
    assert recorder.seen["convolution"] == {dtype}
    error = (got.double() - wanted).norm() / wanted.norm()
    assert 1e-5 < error.item() < 3e-2


def test_autocast_runs() -> None:
    model = filled(TINY)
    arguments = example_inputs(TINY)
    with torch.no_grad():
        wanted = model(**arguments)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = model(**arguments)
    assert got.dtype == torch.bfloat16
    assert ((got.float() - wanted).norm() / wanted.norm()).item() < 3e-2


@pytest.mark.parametrize("config", [TINY, TINY2], ids=["tiny", "tiny2"])
def test_gradients_reach_every_live_parameter(config: SV4DConfig) -> None:
    # Where a norm group is one channel, as in the tiny network, biases before it do nothing.
    config = replace(config, model_channels=64, adm_in_channels=256, latent_size=8)
    model = filled(config, torch.float64).train()
    arguments = example_inputs(config, branches=1, dtype=torch.float64)
    model(**arguments).square().mean().backward()
    largest = {
        name: 0.0 if parameter.grad is None else parameter.grad.abs().max().item()
        for name, parameter in model.named_parameters()
    }
    # One key to attend to leaves attn2's query side without a say, but for rounding.
    dead = {name for name in largest if re.search(r"\.(attn2\.to_[qk]|norm2)\.", name)}
    assert dead
    assert max(largest[name] for name in dead) < 1e-14
    assert min(largest[name] for name in largest.keys() - dead) > 1e-10


def test_a_new_network_predicts_zero_and_can_learn() -> None:
    torch.manual_seed(0)
    model = SV4DUNet(TINY)
    arguments = example_inputs(TINY, branches=1)
    out = model(**arguments)
    assert torch.equal(out, torch.zeros_like(out))
    (out - arguments["x"][:, :4]).square().mean().backward()
    assert model.get_parameter("out.2.weight").grad is not None


@pytest.mark.parametrize(
    ("name", "tflop"), [("sv4d", 170.9), ("sv4d2", 205.8), ("sv4d2_8views", 170.9)]
)
def test_a_full_size_call_costs_what_the_public_one_does(name: str, tflop: float) -> None:
    config = SV4DConfig.named(name)
    model = SV4DUNet(config, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        out = model(**example_inputs(config, device="meta"))
    assert out.shape == (2 * (config.frames or 0) * (config.views or 0), 4, 72, 72)
    assert counter.get_total_flops() / 1e12 == pytest.approx(tflop, abs=0.05)


def test_any_latent_size_and_geometry_may_be_called() -> None:
    free = replace(TINY, frames=None, views=None)
    model = filled(free)
    for branches, frames, views, side in ((1, 2, 3, 8), (3, 1, 2, 6)):
        sized = replace(free, frames=frames, views=views, latent_size=side)
        with torch.no_grad():
            out = model(**example_inputs(sized, branches=branches))
        assert out.shape == (branches * frames * views, 4, side, side)


def test_parameters_are_built_where_and_as_asked() -> None:
    for model in (
        SV4DUNet(TINY, device="meta", dtype=torch.bfloat16),
        SV4DUNet(TINY, device="cpu", dtype=torch.bfloat16),
    ):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in SV4DUNet(TINY).parameters())


def test_the_seed_decides_a_new_network() -> None:
    def drawn(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return SV4DUNet(TINY).state_dict()

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["time_embed.0.weight"], other["time_embed.0.weight"])
    assert first["input_blocks.1.1.time_mixer.mix_factor"].item() == 0


def test_no_buffers_and_no_parameter_shared() -> None:
    model = SV4DUNet(TINY2, device="meta")
    assert list(model.buffers()) == []
    assert len(list(model.parameters())) == len(model.state_dict())


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "no context": ({"context": None}, "SV4DUNet: context, y and cond_view are required."),
    "no y": ({"y": None}, "SV4DUNet: context, y and cond_view are required."),
    "time_context": (
        {"time_context": torch.zeros(1)},
        "SV4DUNet: time_context is given; the SV4D networks take none.",
    ),
    "axes": (
        {"context": torch.zeros(6, 24)},
        "SV4DUNet: x, context and cond_view have 4, 2 and 4 axes; wanted 4, 3 and 4.",
    ),
    "odd latent": (
        {"x": torch.zeros(24, 8, 15, 16)},
        "SV4DUNet: the latent is 15 x 16; with 2 levels both sides must be multiples of 2.",
    ),
    "too few images": (
        {"x": torch.zeros(23, 8, 16, 16)},
        "SV4DUNet: x has 23 images, context 2 branches of 3 frames, cond_view 8 views in all; "
        "wanted images = branches x frames x views and cond_view's length = branches x views.",
    ),
    "ragged views": (
        {"cond_view": torch.zeros(7, 4, 16, 16)},
        "SV4DUNet: x has 24 images, context 2 branches of 3 frames, cond_view 7 views in all; "
        "wanted images = branches x frames x views and cond_view's length = branches x views.",
    ),
    "other frames": (
        {
            "context": torch.zeros(2, 2, 24),
            "x": torch.zeros(16, 8, 16, 16),
            "num_video_frames": None,
        },
        "SV4DUNet: the call has 2 frames; wanted 3.",
    ),
    "num_video_frames": (
        {"num_video_frames": 3},
        "SV4DUNet: the call has 12 frames x views (num_video_frames); wanted 3.",
    ),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_call_that_does_not_fit_is_refused(reason: str) -> None:
    change, sentence = REFUSALS[reason]
    with pytest.raises(InputError) as caught:
        SV4DUNet(TINY)(**{**example_inputs(TINY), **change})
    assert str(caught.value) == sentence


def test_example_inputs_want_a_geometry() -> None:
    with pytest.raises(ConfigError) as caught:
        example_inputs(SV4DConfig())
    assert str(caught.value) == (
        "example_inputs: the configuration has frames None and views None; both must be set."
    )


def test_random_weights_reach_any_module_and_dtype() -> None:
    layer = nn.Linear(3, 2, dtype=torch.float64)
    fill_random(layer)
    assert layer.weight.dtype == torch.float64
    assert torch.equal(layer.weight.double(), layer.weight.float().double())
