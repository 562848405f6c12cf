"""Video denoisers of the package `diffusers`, with random weights and one call of each.

Every factory here gives an `nn.Module` that holds its call as `turbo4d_inputs`, so that
`turbo4d explain --model turbo4d.tools.foreign_models:latte` shows it. Each is described once, with
a column for each of the `sizes`; of some only the tiny one is built. A call holds the two branches
of the guidance, but where the pipeline calls them one by one or has none (`wan` and `hunyuan_video`
of middle size).
"""

from .foreign import FACTORIES, Foreign, build
from .sizes import MID, SIZES, TINY
from .transformers import cogvideox, hunyuan_video, latte, ltx_video, wan
from .unets import animatediff, i2vgen_xl, modelscope, stable_diffusion, svd

__all__ = [
    "FACTORIES",
    "MID",
    "SIZES",
    "TINY",
    "Foreign",
    "animatediff",
    "build",
    "cogvideox",
    "hunyuan_video",
    "i2vgen_xl",
    "latte",
    "ltx_video",
    "modelscope",
    "stable_diffusion",
    "svd",
    "wan",
]
