"""The SV4D family: configurations, the denoiser and its checkpoints."""

from .checkpoint import checkpoint_sha256, load_checkpoint, save_checkpoint
from .config import SV4DConfig
from .errors import CheckpointError, ConfigError, InputError
from .example_inputs import example_inputs
from .random_weights import fill_random
from .unet import SV4DUNet

__all__ = [
    "CheckpointError",
    "ConfigError",
    "InputError",
    "SV4DConfig",
    "SV4DUNet",
    "checkpoint_sha256",
    "example_inputs",
    "fill_random",
    "load_checkpoint",
    "save_checkpoint",
]
