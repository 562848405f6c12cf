"""The unit of the timesteps that schedulers of `diffusers` hand to a model, told by the values."""

import warnings

import pytest
from turbo4d.runtime.levels import check_levels, infer_unit, to_sigma, without_end

diffusers = pytest.importorskip("diffusers")
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
SPACINGS = [{}, *({"timestep_spacing": each} for each in ("leading", "trailing"))]
SIGMAS = [{}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}]
STEPS = (4, 10, 20, 30)


def levels_of(name, steps, **options):
    """Each once: Heun's method feeds all but the first level twice, rounded ones may be alike."""
    timesteps = scheduled(name, steps, **options).timesteps
    return tuple(dict.fromkeys(float(timestep) for timestep in timesteps))


def scheduled(name, steps, **options):
    with warnings.catch_warnings():  # of numpy and diffusers, none of ours
        warnings.simplefilter("ignore")
        scheduler = getattr(diffusers, name)(**options)
        scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(
            (name, {**BETAS, **spacing})
            for name in ("DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler")
            for spacing in SPACINGS[1:]
        ),
        *(
            (name, {**BETAS, **sigmas})
            for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler")
            for sigmas in SIGMAS
        ),
        ("HeunDiscreteScheduler", BETAS),
        ("UniPCMultistepScheduler", BETAS),
        ("LCMScheduler", BETAS),
        ("CogVideoXDDIMScheduler", {"timestep_spacing": "trailing"}),
    ],
)
def test_schedules_of_a_training_in_steps_are_timesteps(name, options, steps):
    levels = levels_of(name, steps, **options)
    assert infer_unit(levels) == "timestep"
    assert without_end(levels, None) == levels
    check_levels(levels, "timestep")


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", [3.0, 5.0, 7.0])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("FlowMatchEulerDiscreteScheduler", {}),
        ("FlowMatchHeunDiscreteScheduler", {}),
        ("UniPCMultistepScheduler", FLOW),
        ("DPMSolverMultistepScheduler", FLOW),
    ],
)
def test_schedules_of_a_flow_are_told_from_them(name, options, shift, steps):
    named = "flow_shift" if options else "shift"
    levels = levels_of(name, steps, **options, **{named: shift})
    assert infer_unit(levels) == "flow_timestep"
    assert infer_unit([level / 1000 for level in levels]) == "flow"  # as Flux is fed them


@pytest.mark.parametrize("steps", STEPS)
def test_what_svd_is_fed_is_c_noise_and_its_sigmas_are_sigmas(steps):
    scheduler = scheduled(
        "EulerDiscreteScheduler",
        steps,
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        timestep_type="continuous",
        sigma_min=0.002,
        sigma_max=700.0,
    )
    fed, sigmas = scheduler.timesteps.tolist(), scheduler.sigmas.tolist()
    assert (infer_unit(fed), infer_unit(sigmas)) == ("c_noise", "sigma")
    assert [to_sigma(level, "c_noise") for level in fed] == pytest.approx(sigmas[:-1], rel=1e-3)
