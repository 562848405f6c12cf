"""The nano autoencoder: 64 x 64 RGB to a 4-channel latent at a quarter of the size, and back.

Deterministic (the encoder returns its mode) and strictly local: it has no normalisation layer, so
no pixel sees the whole image. Latents are standardised per channel by `shift` and `scale`, buffers
that travel with the weights.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LATENT_CHANNELS = 4
DOWNSCALE = 4


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class NanoVAE(nn.Module):
    """Encoder and decoder of the nano model.

    Args:
        encoder_channels: width of the encoder.
        decoder_channels: width of the decoder at latent resolution; half of it above.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, encoder_channels: int = 48, decoder_channels: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, encoder_channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(encoder_channels, encoder_channels, 4, stride=2, padding=1),
            _Residual(encoder_channels),
            nn.SiLU(),
            nn.Conv2d(encoder_channels, LATENT_CHANNELS, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, decoder_channels, 3, padding=1),
            _Residual(decoder_channels),
            _Residual(decoder_channels),
            nn.SiLU(),
            nn.Conv2d(decoder_channels, decoder_channels * 2, 3, padding=1),
            nn.PixelShuffle(2),
            _Residual(decoder_channels // 2),
            nn.SiLU(),
            nn.Conv2d(decoder_channels // 2, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.register_buffer("shift", torch.zeros(LATENT_CHANNELS))
        self.register_buffer("scale", torch.ones(LATENT_CHANNELS))

    def encode(self, images: Tensor) -> Tensor:
        """Images [..., 3, H, W] in [0, 1] to standardised latents [..., 4, H/4, W/4]."""
        lead = images.shape[:-3]
        z = self.encoder(images.reshape(-1, *images.shape[-3:]) * 2.0 - 1.0)
        z = (z - self.shift.view(1, -1, 1, 1)) / self.scale.view(1, -1, 1, 1)
        return z.reshape(*lead, *z.shape[1:])

    def decode(self, latents: Tensor) -> Tensor:
        """Standardised latents [..., 4, h, w] to images [..., 3, 4h, 4w], clamped to [0, 1]."""
        lead = latents.shape[:-3]
        z = latents.reshape(-1, *latents.shape[-3:])
        x = self.decoder(z * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1))
        return (x * 0.5 + 0.5).clamp(0.0, 1.0).reshape(*lead, *x.shape[1:])
