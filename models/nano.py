"""The nano SV4D: a network of the family, about 1/300 its size, trained on our own scenes."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .checkpoint import PUBLIC_PREFIX, checkpoint_sha256, load_checkpoint
from .config import SV4DConfig
from .errors import CheckpointError
from .unet import SV4DUNet
from .vae import NanoVAE

VAE_PREFIX = "first_stage_model."
WEIGHTS = "nano-v1.safetensors"

__all__ = ["PUBLIC_PREFIX", "VAE_PREFIX", "WEIGHTS", "load_nano", "nano_sha256", "weights_path"]


def weights_path() -> Path:
    """Where the packaged weights lie."""
    return Path(__file__).parent / "weights" / WEIGHTS


def nano_sha256() -> str:
    """The SHA-256 of the packaged weights, in hexadecimal.

    Raises:
        CheckpointError: the file cannot be read.
    """
    return checkpoint_sha256(weights_path())


def load_nano(path: str | os.PathLike[str] | None = None) -> tuple[SV4DUNet, NanoVAE]:
    """The trained network and its autoencoder, in float32 on the CPU, in eval mode.

    Args:
        path: a file laid out as the packaged one, which None means: float16, the network under
            `model.diffusion_model.`, the autoencoder under `first_stage_model.`.

    Raises:
        CheckpointError: the file cannot be read or does not hold exactly these weights.
    """
    path = weights_path() if path is None else Path(path)
    network = load_checkpoint(path, SV4DConfig.named("nano"))
    return network.eval(), _load_vae(path).eval()


def _load_vae(path: Path) -> NanoVAE:
    vae = NanoVAE()
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(VAE_PREFIX)]
            weights = {name.removeprefix(VAE_PREFIX): file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"load_nano: {path} is not a readable safetensors file ({error})."
        ) from error
    wanted = {name: tuple(value.shape) for name, value in vae.state_dict().items()}
    if {name: tuple(value.shape) for name, value in weights.items()} != wanted:
        raise CheckpointError(
            f"load_nano: {path} does not hold the autoencoder's {len(wanted)} tensors under "
            f"{VAE_PREFIX!r}."
        )
    vae.load_state_dict({name: value.float() for name, value in weights.items()})
    return vae
