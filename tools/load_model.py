"""The network that --model and --checkpoint name, with what is known of its weights."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from turbo4d.models.checkpoint import checkpoint_sha256, load_checkpoint
from turbo4d.models.config import SV4DConfig
from turbo4d.models.nano import load_nano, weights_path
from turbo4d.models.random_weights import fill_random
from turbo4d.models.unet import SV4DUNet
from turbo4d.models.vae import NanoVAE
from turbo4d.tools.environment import weights_sha256
from turbo4d.tools.failures import CallError

# What code of a user fails with; anything else is not of an nn.Module's making.
_OF_USERS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError,
    RuntimeError, SyntaxError, TypeError, ValueError,
)  # fmt: skip
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class LoadedModel:
    """A denoiser of the SV4D family that can be sampled, and its autoencoder."""

    name: str
    network: SV4DUNet
    vae: NanoVAE
    weights: str  # "trained" or "random"
    weights_sha256: str  # of the file, or of the drawn values

    @property
    def config(self) -> SV4DConfig:
        """Of the network; frames and views are set."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Of the network."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the network."""
        return next(self.network.parameters()).dtype

    @property
    def shows_scenes(self) -> bool:
        """Whether a sample can be judged against its scene: only nano has a trained autoencoder."""
        return self.name == "nano"


def load_model(
    name: str, checkpoint: Path | None, dtype: torch.dtype, device: torch.device
) -> LoadedModel:
    """A model that `generate` can sample.

    Args:
        name: "nano", "tiny", or package.module:factory.
        checkpoint: weights instead of nano's own, or of the random ones.
        dtype: of the network; the autoencoder stays in float32.
        device: of both.

    Raises:
        CallError: the model cannot be sampled here, or nano's weights are missing.
        CheckpointError: the file does not hold this network's weights.
    """
    if name == "nano":
        network, vae, sha256 = _nano(checkpoint)
    else:
        network, vae, sha256 = _random(name, checkpoint)
    network = network.to(device=device, dtype=dtype).eval().requires_grad_(False)
    return LoadedModel(
        name=name,
        network=network,
        vae=vae.to(device).eval().requires_grad_(False),
        weights="trained" if name == "nano" or checkpoint is not None else "random",
        weights_sha256=sha256,
    )


def shown_by(name: str, checkpoint: Path | None) -> tuple[SV4DConfig, NanoVAE]:
    """A model's configuration and autoencoder, where its denoiser is not needed.

    Args:
        name: as of `load_model`.
        checkpoint: that nano's autoencoder is read from; other models have none of their own.

    Raises:
        CallError: the model cannot be sampled here, or nano's weights are missing.
    """
    if name == "nano":
        network, vae, _ = _nano(checkpoint)
        return network.config, vae
    network = _made(name) if ":" in name else _named(name)
    return network.config, _random_vae()


def _random_vae() -> NanoVAE:
    vae = NanoVAE()
    fill_random(vae)
    return vae


def _nano(checkpoint: Path | None) -> tuple[SV4DUNet, NanoVAE, str]:
    path = checkpoint or weights_path()
    if checkpoint is None and not path.is_file():
        raise CallError(
            f"--model 'nano' has no weights file ({path.name} is missing); give --checkpoint FILE, "
            "or use --model tiny, whose weights are random."
        )
    network, vae = load_nano(path)
    return network, vae, checkpoint_sha256(path)


def _random(name: str, checkpoint: Path | None) -> tuple[SV4DUNet, NanoVAE, str]:
    network = _made(name) if ":" in name else _named(name)
    vae = _random_vae()
    if checkpoint is not None:
        return load_checkpoint(checkpoint, network), vae, checkpoint_sha256(checkpoint)
    fill_random(network)
    return network, vae, weights_sha256(network)


def _named(name: str) -> SV4DUNet:
    if name != "tiny":
        raise CallError(
            f"--model {name!r} cannot be sampled in this version, which has neither its image "
            "encoder nor its autoencoder; choose 'nano' or 'tiny', or call turbo4d.session in the "
            "model's own script."
        )
    return SV4DUNet(SV4DConfig.named(name))


def _made(name: str) -> SV4DUNet:
    network = make(name)
    if not isinstance(network, SV4DUNet) or None in (network.config.frames, network.config.views):
        raise CallError(
            f"--model {name!r} made a {type(network).__name__}; generate samples an SV4DUNet with "
            "frames and views set, and any other model through turbo4d.session in its own loop."
        )
    return network


def make(name: str) -> nn.Module:
    """Call the factory that "package.module:factory" names.

    Raises:
        CallError: it cannot be imported, is not there, fails, or makes no nn.Module.
    """
    home, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(home)
    except _OF_USERS as error:
        raise CallError(
            f"--model {name!r}: {home!r} cannot be imported ({error}); write "
            "package.module:factory and put its folder on PYTHONPATH."
        ) from error
    factory: Any = getattr(module, attribute, None)
    if factory is None:
        raise CallError(f"--model {name!r}: {home!r} has no {attribute!r}.")
    try:
        network = factory() if callable(factory) else factory
    except _OF_USERS as error:
        raise CallError(
            f"--model {name!r} failed: {type(error).__name__}: {str(error).rstrip('.')}; --debug "
            "shows where."
        ) from error
    if not isinstance(network, nn.Module):
        raise CallError(f"--model {name!r} made a {type(network).__name__}; wanted an nn.Module.")
    return network
