"""The residual block: convolutions within an image, then across the (frame, view) sequence."""

from __future__ import annotations

from torch import Tensor, nn

from .blend import Blend
from .geometry import Geometry
from .norm import GroupNorm32


class _Residual(nn.Module):
    """norm, SiLU, convolution, + embedding, norm, SiLU, convolution, + skip."""

    def __init__(self, channels: int, out_channels: int, embed_channels: int, across: bool) -> None:
        super().__init__()

        def conv(width: int) -> nn.Module:
            if across:
                return nn.Conv3d(width, out_channels, (3, 1, 1), padding=(1, 0, 0))
            return nn.Conv2d(width, out_channels, 3, padding=1)

        self.in_layers = nn.Sequential(GroupNorm32(channels), nn.SiLU(), conv(channels))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embed_channels, out_channels))
        # The third entry holds the place of the public network's dropout, so that keys agree.
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels), nn.SiLU(), nn.Identity(), conv(out_channels)
        )


class _ResidualAcross(_Residual):
    """The residual along the sequence of all images of a branch, in the order (f v)."""

    def __init__(self, channels: int, embed_channels: int) -> None:
        super().__init__(channels, channels, embed_channels, across=True)

    def forward(self, x: Tensor, emb: Tensor, branches: int) -> Tensor:
        """[B, C, F*V, H, W] and [B*F*V, E] to [B, C, F*V, H, W]."""
        shift = self.emb_layers(emb).unflatten(0, (branches, -1)).transpose(1, 2)
        hidden = self.in_layers(x) + shift[..., None, None]
        return x + self.out_layers(hidden)


class ResBlock(_Residual):
    """A 2D residual block blended with a temporal one.

    The temporal convolution runs over the flat (f v) sequence, so its neighbours are views, and
    at a frame's last view the next frame's first: that is the public network.

    Args:
        channels, out_channels: Ci and Co; a 1x1 convolution joins the skip where they differ.
        embed_channels: E of the time embedding.
        merge_factor: initial blend parameter.
    """

    def __init__(
        self, channels: int, out_channels: int, embed_channels: int, merge_factor: float
    ) -> None:
        super().__init__(channels, out_channels, embed_channels, across=False)
        self.skip_connection: nn.Module = nn.Identity()
        if channels != out_channels:
            self.skip_connection = nn.Conv2d(channels, out_channels, 1)
        self.time_mix_blocks = _ResidualAcross(out_channels, embed_channels)
        self.time_mixer = Blend(merge_factor)

    def forward(self, x: Tensor, emb: Tensor, geometry: Geometry) -> Tensor:
        """[B*F*V, Ci, H, W] and [B*F*V, E] to [B*F*V, Co, H, W]."""
        hidden = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        within = self.skip_connection(x) + self.out_layers(hidden)
        sequence = within.unflatten(0, (geometry.branches, -1)).transpose(1, 2)
        across = self.time_mix_blocks(sequence, emb, geometry.branches)
        return self.time_mixer(sequence, across).transpose(1, 2).reshape(within.shape)
