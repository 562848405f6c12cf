"""A factory for --model: the smallest network of the family, of one level; imports no compiler."""

from turbo4d.models.config import SV4DConfig
from turbo4d.models.unet import SV4DUNet


def small() -> SV4DUNet:
    return SV4DUNet(
        SV4DConfig(
            model_channels=32, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(1,),
            num_head_channels=16, context_dim=16, adm_in_channels=32, latent_size=4, frames=2,
            views=3,
        )
    )  # fmt: skip
