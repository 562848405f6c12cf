import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from turbo4d.models.branches import Branches, load_conditioning
from turbo4d.models.config import SV4DConfig
from turbo4d.models.errors import ConditioningError
from turbo4d.models.guiders import SpatiotemporalPredictionGuider, VanillaCFG
from turbo4d.models.pipeline import sample_pass, sv4d_sample
from turbo4d.models.random_weights import fill_random
from turbo4d.models.recipes import Pass, Recipe, draw_noise, sv4d_passes
from turbo4d.models.sampler import sample_dpmpp_2m, sample_euler
from turbo4d.models.schedule import edm_sigmas
from turbo4d.models.unet import SV4DUNet

GOLDEN = Path(__file__).parents[1] / "data/golden/sampler_sv4d_tiny_dense4.safetensors"
DENSE = Pass("dense0", (0, 1, 2), {"backward": 2, "forward": 0})


@pytest.fixture(scope="module")
def unet():
    module = SV4DUNet(SV4DConfig.named("tiny")).eval()
    fill_random(module)
    return module


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.fixture(scope="module")
def streams(golden, tmp_path_factory):
    """The golden's conditioning, through the file format of `load_conditioning`."""
    path = tmp_path_factory.mktemp("conditioning") / "dense.safetensors"
    tensors = {
        f"dense0.{name}": value
        for name, value in golden.items()
        if name.startswith(("forward.", "backward."))
    }
    save_file(tensors, path)
    loaded = load_conditioning(path, frames=3, views=4)
    return {direction: loaded[f"dense0.{direction}"] for direction in ("forward", "backward")}


def run_golden(unet, golden, streams, dtype, **hooks):
    return sample_pass(
        unet.to(dtype),
        DENSE,
        {direction: held.to(dtype=dtype) for direction, held in streams.items()},
        golden["latent_noise"].to(dtype),
        edm_sigmas(4, dtype=dtype),
        SpatiotemporalPredictionGuider(2.0),
        **hooks,
    )


def test_dense_run_equals_the_original(unet, golden, streams):
    announced = []

    def compare(i, x, denoised):
        wanted = golden[f"x_after_step{i}"]
        assert (x - wanted).norm() / wanted.norm() < 1e-5

    final = run_golden(
        unet,
        golden,
        streams,
        torch.float32,
        before_step=lambda i, sigma, stream: announced.append((i, stream)),
        on_step=compare,
    )
    torch.testing.assert_close(final, golden["final"], rtol=0, atol=2e-4)
    assert announced == [
        (0, "dense0.backward"),
        (1, "dense0.forward"),
        (2, "dense0.backward"),
        (3, "dense0.forward"),
    ]


def test_dense_run_in_float64_equals_the_original(unet, golden, streams):
    final = run_golden(unet, golden, streams, torch.float64)
    torch.testing.assert_close(final, golden["final_fp64"], rtol=0, atol=1e-9)


SMALL = Recipe(sv4d_passes(7, 3), views=2, steps=2, guider=VanillaCFG(1.0))


def constant_branches(value: float, frames: int = 3, views: int = 2) -> Branches:
    images = frames * views
    c = {
        "concat": torch.full((images, 4, 2, 2), value),
        "cond_motion": torch.full((frames, 4, 2, 2), value),
        "cond_view": torch.full((views, 4, 2, 2), value),
        "crossattn": torch.full((1, frames, 6), value),
        "vector": torch.full((images, 10), value),
    }
    return Branches(c, c, frames, views)


def copies_concat(x, t, **inputs):
    """A v-prediction whose last step returns nearly minus the concat conditioning."""
    return x[:, 4:]


@pytest.mark.parametrize("solver", [sample_euler, sample_dpmpp_2m])
def test_passes_run_in_order_and_later_ones_stay(solver):
    asked, announced = [], []

    def condition(run, direction, latents):
        asked.append((run.stream(direction), sorted(latents)))
        return constant_branches(1.0 + SMALL.passes.index(run))

    latents = sv4d_sample(
        copies_concat,
        SMALL,
        condition,
        draw_noise(SMALL, 2, 2, seed=0),
        torch.tensor([100.0, 10.0, 0.0]),
        solver=solver,
        before_step=lambda i, sigma, stream: announced.append((i, stream)),
    )
    assert asked == [
        ("anchor.forward", []),
        ("dense0.backward", [2, 4, 6]),
        ("dense0.forward", [2, 4, 6]),
        ("dense1.backward", [0, 1, 2, 4, 6]),
        ("dense1.forward", [0, 1, 2, 4, 6]),
        ("dense2.backward", [0, 1, 2, 3, 4, 6]),
        ("dense2.forward", [0, 1, 2, 3, 4, 6]),
    ]
    assert announced == [
        (0, "anchor.forward"),
        (1, "anchor.forward"),
        *[(i, f"dense{k}.{d}") for k in range(3) for i, d in enumerate(("backward", "forward"))],
    ]
    assert latents.shape == (7, 2, 4, 2, 2)
    by_pass = latents.mean((1, 2, 3, 4)).neg()
    torch.testing.assert_close(
        by_pass, torch.tensor([2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 4.0]), rtol=0, atol=0.5
    )


def test_conditioning_may_be_a_table_by_stream():
    table = {stream: constant_branches(1.0) for stream in SMALL.streams}
    noise = draw_noise(SMALL, 2, 2, seed=0)
    latents = sv4d_sample(copies_concat, SMALL, table, noise)
    assert latents.shape == (7, 2, 4, 2, 2)
    del table["dense1.forward"]
    wanted = (
        "no conditioning for stream 'dense1.forward'; there is 'anchor.forward', "
        "'dense0.backward', 'dense0.forward', 'dense1.backward', 'dense2.backward', "
        "'dense2.forward'."
    )
    with pytest.raises(ConditioningError, match=f"^{re.escape(wanted)}$"):
        sv4d_sample(copies_concat, SMALL, table, noise)


def test_conditioning_of_another_size_is_refused():
    wanted = (
        "conditioning of stream 'anchor.forward' is for 3 frames x 4 views; the pass has 3 x 2."
    )
    with pytest.raises(ConditioningError, match=f"^{re.escape(wanted)}$"):
        sv4d_sample(
            copies_concat,
            SMALL,
            lambda run, direction, latents: constant_branches(1.0, views=4),
            draw_noise(SMALL, 2, 2, seed=0),
        )
