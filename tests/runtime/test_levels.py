import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.levels import check_levels, infer_unit, to_sigma, without_end

FALLING = st.lists(st.floats(1e-3, 999), min_size=1, unique=True).map(
    lambda levels: sorted(levels, reverse=True)
)


@given(FALLING, st.sampled_from(["sigma", "c_noise", "timestep"]))
def test_falling_levels_pass_in_every_unit(levels, unit):
    check_levels(levels, unit)


@pytest.mark.parametrize(
    ("levels", "unit", "text"),
    [
        ([], "sigma", "levels: there are none; wanted the noise level of each step."),
        (
            [1.0],
            "snr",
            "levels: unit 'snr' is unknown; there are c_noise, flow, flow_timestep, log_sigma, "
            "sigma, timestep.",
        ),
        (
            [3.0, 1.0, 2.0],
            "sigma",
            "levels: step 2 has 2 after 1; noise levels must fall from step to step.",
        ),
        (
            [3.0, 3.0],
            "sigma",
            "levels: step 1 has 3 after 3; noise levels must fall from step to step.",
        ),
        ([3.0, 0.0], "sigma", "levels: step 1 has 0, which is no sigma that a model is fed."),
        ([math.nan], "sigma", "levels: step 0 has nan, which is no sigma that a model is fed."),
        ([math.inf], "c_noise", "levels: step 0 has inf, which is no c_noise that a model is fed."),
        ([1001], "timestep", "levels: step 0 has 1001, which is no timestep that a model is fed."),
    ],
)
def test_other_levels_are_refused(levels, unit, text):
    with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
        check_levels(levels, unit)


@pytest.mark.parametrize(
    ("levels", "got"),
    [("20", "'20'"), (5, "5"), ([1.0, "x"], "[1.0, 'x']"), (torch.ones(2, 2), "(2, 2)")],
)
def test_what_is_no_list_of_numbers_is_refused(levels, got):
    with pytest.raises(PlanError) as caught:
        without_end(levels, None)
    wanted = f"levels: got {got}; wanted a list, or a tensor of one axis, of numbers."
    assert str(caught.value) == wanted


def test_the_last_timestep_may_be_zero():
    check_levels([999, 500, 0], "timestep")


@pytest.mark.parametrize(
    ("levels", "steps", "fed"),
    [
        ([2.0, 1.0, 0.0], None, (2.0, 1.0)),
        ([2.0, 1.0, 0.0], 2, (2.0, 1.0)),
        ([999.0, 500.0, 0.0], 3, (999.0, 500.0, 0.0)),
        ([2.0, 1.0], 2, (2.0, 1.0)),
        ([0.0], None, (0.0,)),
        ([999.0, 500.0, 0.0], 2, (999.0, 500.0)),
    ],
)
def test_a_closing_zero_of_sigmas_is_no_step(levels, steps, fed):
    assert without_end(levels, steps) == fed


@pytest.mark.parametrize(
    ("levels", "unit", "fed"),
    [
        ([950.0, 900.0, 0.0], None, (950.0, 900.0, 0.0)),
        ([500.0, 250.0, 0.0], "timestep", (500.0, 250.0, 0.0)),
        ([0.5, 0.2, 0.0], "c_noise", (0.5, 0.2, 0.0)),
        ([950.0, 900.0, 0.0], "sigma", (950.0, 900.0)),
    ],
)
def test_a_closing_zero_of_other_units_is_a_level(levels, unit, fed):
    assert without_end(levels, None, unit) == fed


@pytest.mark.parametrize(
    ("levels", "unit"),
    [
        ([1.6, 0.2, -1.5], "c_noise"),
        ([999, 500, 1], "timestep"),
        ([700.0, 2.0, 0.002], "sigma"),
        ([1000.5, 1.0], "sigma"),
        ([14.6, 0.03], "sigma"),
        ([750, 500, 250, 0], "timestep"),  # four steps of DDIM
        ([481, 321, 161, 1], "timestep"),  # begun at half of the noise, offset by one
        ([500, 250], "timestep"),
        ([999.0, 666.0, 333.0, 0.0], "timestep"),
        ([999.0, 946.4, 893.8, 500.2, 52.6, 0.0], "timestep"),  # evenly spaced, as Euler is fed
        ([1000.0, 986.3, 900.1, 631.6, 136.4], "flow_timestep"),
        ([1000.0, 750.0, 500.0, 250.0], "flow_timestep"),
        ([999, 899, 750, 500], "flow_timestep"),  # four steps of UniPC, shifted by 3
        ([999, 666, 333], "timestep"),
        ([700.0, 219.1, 53.6, 9.2, 0.9, 0.02, 0.002], "sigma"),
        ([1.0, 0.95, 0.8, 0.2], "flow"),
        ([80.0, 1.0], "sigma"),
        ([700.0, 0.0], "sigma"),  # one step, and the schedule's end
        ([3.0, 2.0, 1.0, 0.0], "sigma"),
    ],
)
def test_the_unit_is_inferred(levels, unit):
    assert infer_unit(levels) == unit


@given(st.floats(1e-3, 1e3))
def test_c_noise_is_a_quarter_of_the_logarithm(sigma):
    assert to_sigma(math.log(sigma) / 4, "c_noise") == pytest.approx(sigma)
    assert to_sigma(sigma, "sigma") == sigma


def test_timesteps_follow_the_schedule_of_stable_diffusion():
    # The end points that every EDM-style sampler for Stable Diffusion quotes.
    assert to_sigma(999, "timestep") == pytest.approx(14.6146, rel=1e-4)
    assert to_sigma(0, "timestep") == pytest.approx(0.0292, rel=1e-2)
    assert to_sigma(1000, "timestep") == to_sigma(999, "timestep")


@given(st.floats(0, 998), st.floats(0.01, 1))
def test_timesteps_keep_their_order(step, more):
    assert to_sigma(step + more, "timestep") > to_sigma(step, "timestep")


@pytest.mark.parametrize("highest", [14.6, 700.0])
def test_logarithms_of_sigmas_are_known_from_their_quarters(highest):
    sigmas = [highest / 2**step for step in range(12)]
    logs = [math.log(sigma) for sigma in sigmas]
    assert infer_unit(logs) == "log_sigma"
    assert infer_unit([log / 4 for log in logs]) == "c_noise"
    assert [to_sigma(log, "log_sigma") for log in logs] == pytest.approx(sigmas)
    check_levels(logs, "log_sigma")
