"""The noise schedule and the v-prediction scalings of the SV4D family."""

from typing import NamedTuple

import torch
from torch import Tensor


class VScaling(NamedTuple):
    """The four coefficients that wrap a v-predicting network, each of sigma's shape.

    The prediction of the clean latent is ``c_skip * x + c_out * network(c_in * x, c_noise)``.
    """

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def edm_sigmas(
    n: int,
    sigma_min: float = 0.002,
    sigma_max: float = 700.0,
    rho: float = 7.0,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Noise levels of an n-step run, noisiest first, with a trailing 0.

    Args:
        n: number of steps, at least 1.
        sigma_min: level of the last step (standard deviation of the noise).
        sigma_max: level of step 0. SV4D's scripts use 700 where its configurations say 500.
        rho: bend of the schedule; larger spends more steps near sigma_min.
        dtype: precision of the computation too; the original computes in float32.
        device: where the levels live.

    Returns:
        Tensor [n + 1], on `device`, of `dtype`.

    Raises:
        ValueError: n is below 1.

    Source: Karras et al. 2022, "Elucidating the Design Space", eq. 5 (t_i is our sigma).
    """
    if n < 1:
        raise ValueError(f"a schedule needs at least 1 step, not {n}.")
    ramp = torch.linspace(0, 1, n, dtype=dtype, device=device)
    start, end = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (start + ramp * (end - start)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def v_scaling(sigma: Tensor) -> VScaling:
    """Scalings of v-prediction with EDM's noise label, for every level of sigma.

    Args:
        sigma: positive noise levels, any shape and floating dtype.

    Returns:
        VScaling of tensors of sigma's shape, dtype and device. `c_noise` is what the model is
        fed as its timestep.

    Source: Salimans and Ho 2022 (v-prediction), with c_noise = ln(sigma) / 4 of Karras et al. 2022.
    """
    variance = sigma**2 + 1.0
    return VScaling(
        c_skip=1.0 / variance,
        c_out=-sigma / variance**0.5,
        c_in=1.0 / variance**0.5,
        c_noise=0.25 * sigma.log(),
    )
