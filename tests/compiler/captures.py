"""Captures that several tests look at: each network is traced once per session."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_compiled, capture_export
from turbo4d.compiler.ir import Capture
from turbo4d.models.config import SV4DConfig
from turbo4d.models.embedding import mlp, sinusoid
from turbo4d.models.geometry import geometry_of
from turbo4d.models.scm import SCMModule
from turbo4d.models.unet import SV4DUNet

from tests.compiler import foreign

SMALL = {
    "model_channels": 32, "channel_mult": (1,), "num_res_blocks": 1, "attention_resolutions": (1,),
    "num_head_channels": 16, "context_dim": 24, "adm_in_channels": 128, "frames": 3, "views": 2,
    "latent_size": 8,
}  # fmt: skip
CONFIGS: dict[str, SV4DConfig] = {
    "sv4d_small": SV4DConfig(**SMALL),
    "sv4d_tree": SV4DConfig(**{**SMALL, "channel_mult": (1, 2), "attention_resolutions": (2, 1)}),
    "sv4d": SV4DConfig.named("sv4d"),
}
# Networks of one S-C-M module between two convolutions: as good as a whole one, and soon traced.
CHAINS: dict[str, SV4DConfig] = {
    "chain": SV4DConfig(**SMALL),
    "chain_of_groups": SV4DConfig(**SMALL, use_3d_attention=True, use_camera_emb=True),
    "chain_of_volumes": SV4DConfig(**SMALL, use_3d_attention=True, attention_3d="full"),
}
NETWORKS = ("sv4d_small", *foreign.NETWORKS)


class Chain(nn.Module):
    """An S-C-M module on its own, called as the network is."""

    def __init__(self, config: SV4DConfig) -> None:
        super().__init__()
        self.config = config
        self.turbo4d_geometry = {"views": config.views, "frames": config.frames}
        self.first = nn.Conv2d(config.in_channels, 32, 3, padding=1)
        self.level = mlp(32, 128, 128)
        self.label = nn.Linear(config.adm_in_channels, 128)
        self.module = SCMModule(32, config)
        self.last = nn.Conv2d(32, config.out_channels, 3, padding=1)

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor, cond_view: Tensor
    ) -> Tensor:
        geometry = geometry_of(self.config, x, context, cond_view, None)
        emb = self.level(sinusoid(timesteps, 32, x.dtype)) + self.label(y)
        hidden = self.first(x) + emb[:, :32, None, None]
        return self.last(self.module(hidden, emb, context, cond_view, geometry))


def build(
    name: str, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[nn.Module, dict[str, Any]]:
    """A network in eval mode, with weights that are all at work, and one call's arguments."""
    if name in foreign.NETWORKS:
        return foreign.build(name, dtype)
    if name in CHAINS:
        config, module = CHAINS[name], Chain(CHAINS[name]).to(device, dtype).eval()
    else:
        config = CONFIGS[name]
        module = SV4DUNet(config, device=device, dtype=dtype).eval()
    generator = torch.Generator().manual_seed(0)
    if device != "meta":
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module, sv4d_call(config, dtype, device)


def sv4d_call(
    config: SV4DConfig, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> dict[str, Tensor]:
    """Arguments of one call with two guidance branches."""
    frames, views, side = config.frames or 3, config.views or 2, config.latent_size
    images = 2 * frames * views
    shapes = {
        "x": (images, config.in_channels, side, side),
        "context": (2, frames, config.context_dim),
        "y": (images, config.adm_in_channels),
        "cond_view": (2 * views, config.motion_context_dim, side, side),
    }
    generator = torch.Generator().manual_seed(1)
    call = {
        name: torch.empty(shape, device="meta", dtype=dtype)
        if device == "meta"
        else torch.randn(shape, generator=generator).to(dtype)
        for name, shape in shapes.items()
    }
    return {**call, "timesteps": torch.full((images,), 0.3, dtype=dtype, device=device)}


@dataclass(frozen=True)
class Compiled:
    """What a torch.compile backend saw and made of one call."""

    module: nn.Module
    call: dict[str, Any]
    arguments: list[Any]
    capture: Capture


@cache
def _exported(name: str, dtype: torch.dtype, device: str) -> tuple[nn.Module, Capture]:
    module, call = build(name, dtype, device)
    return module, capture_export(module, (), call)


def exported(name: str, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Capture:
    """A network through the export door."""
    return _exported(name, dtype, device)[1]


def exported_module(name: str) -> nn.Module:
    """The module that `exported` captured."""
    return _exported(name, torch.float32, "cpu")[0]


@cache
def compiled(name: str) -> Compiled:
    """A network through the compile door."""
    return capture_by_compile(*build(name))


@cache
def analysed(name: str) -> Analysis:
    """What the compiler finds out about a network."""
    return analyse(exported(name, device="meta" if name in CONFIGS else "cpu"), gates=False)


def capture_by_compile(module: nn.Module, call: dict[str, Any]) -> Compiled:
    """The capture that a torch.compile backend makes of one call."""
    found: list[Compiled] = []

    def backend(gm: Any, inputs: Any) -> Any:
        found.append(Compiled(module, call, list(inputs), capture_compiled(gm, inputs)))
        return gm

    torch.compiler.reset()
    with torch.no_grad():
        torch.compile(module, backend=backend, fullgraph=True)(**call)
    return found[0]
