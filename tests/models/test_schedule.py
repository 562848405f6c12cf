import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from turbo4d.models.schedule import edm_sigmas, v_scaling

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "data/golden/sampler_goldens.json").read_text("utf-8")
)
PRECISIONS = [(torch.float32, "fp32"), (torch.float64, "fp64")]


@pytest.mark.parametrize("n", [3, 4, 20, 50])
@pytest.mark.parametrize(("dtype", "name"), PRECISIONS)
def test_sigmas_equal_the_original(n, dtype, name):
    wanted = torch.tensor(GOLDEN[f"edm_sigmas_n{n}"][f"sigmas_{name}"], dtype=dtype)
    torch.testing.assert_close(edm_sigmas(n, dtype=dtype), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("dtype", "name"), PRECISIONS)
def test_scalings_equal_the_original(dtype, name):
    golden = GOLDEN["v_scaling_edm_cnoise"]
    scaling = v_scaling(torch.tensor(golden["sigma"], dtype=dtype))
    eps = torch.finfo(dtype).eps
    for field, value in scaling._asdict().items():
        wanted = torch.tensor(golden[name][field], dtype=dtype)
        torch.testing.assert_close(value, wanted, rtol=4 * eps, atol=0)


def test_one_step_starts_at_sigma_max():
    assert edm_sigmas(1, sigma_max=80.0).tolist() == pytest.approx([80.0, 0.0], rel=1e-6)


def test_no_steps_is_refused():
    with pytest.raises(ValueError, match=r"^a schedule needs at least 1 step, not 0\.$"):
        edm_sigmas(0)


@given(n=st.integers(2, 100), low=st.floats(1e-3, 1.0), span=st.floats(1.5, 1e4))
def test_sigmas_fall_strictly_from_max_to_min_to_zero(n, low, span):
    sigmas = edm_sigmas(n, low, low * span, dtype=torch.float64)
    assert bool((sigmas.diff() < 0).all())
    assert sigmas[-1] == 0
    torch.testing.assert_close(
        sigmas[[0, -2]], torch.tensor([low * span, low], dtype=torch.float64), rtol=1e-9, atol=0
    )


@given(st.floats(1e-3, 1e3))
def test_scalings_rotate(sigma):
    """A noisy sample of variance 1 + sigma**2 enters with variance 1, and skip and out share it."""
    scaling = v_scaling(torch.tensor(sigma, dtype=torch.float64))
    torch.testing.assert_close(scaling.c_in**2, scaling.c_skip)
    torch.testing.assert_close(scaling.c_skip + scaling.c_out**2, torch.ones_like(scaling.c_in))
    torch.testing.assert_close(torch.exp(4 * scaling.c_noise), torch.full_like(scaling.c_in, sigma))
