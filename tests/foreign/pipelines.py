"""Pipelines of `diffusers` as they are, but for the encoders: what a prompt gives is passed in.

Their modules import classes of `transformers`, which is not installed where the tests run; a module
that has any class by name stands in for it, and empty classes for the mixins that load LoRAs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from turbo4d.tools.foreign_models import build

WORDS, TEXT = 5, 16


class AnyClass(ModuleType):
    """A module that has a class by any name."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def pipeline_class(monkeypatch: pytest.MonkeyPatch, module: str, name: str, *mixins: str) -> Any:
    """A pipeline's class, where its module can be imported at all."""
    pytest.importorskip("regex")
    loaders = import_module("diffusers.loaders")
    import_module("diffusers.pipelines.pipeline_utils")  # before anything stands in
    if "transformers" not in sys.modules:
        monkeypatch.setitem(sys.modules, "transformers", AnyClass("transformers"))
        for mixin in mixins:
            monkeypatch.setattr(loaders, mixin, type(mixin, (), {}), raising=False)
    return getattr(import_module(f"diffusers.pipelines.{module}"), name)


def wan(monkeypatch: pytest.MonkeyPatch, scheduler: Any) -> Any:
    """Text to video, its guidance branches called one by one."""
    made = pipeline_class(monkeypatch, "wan.pipeline_wan", "WanPipeline", "WanLoraLoaderMixin")
    network = build("wan").module
    pipe = made(
        tokenizer=None, text_encoder=None, vae=None, transformer=network, scheduler=scheduler
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def called(pipe: Any, steps: int = 10, prompt: int = 0, **more: Any) -> Tensor:
    """The final latent of a prompt."""
    return pipe(**inputs(steps, prompt), **more)[0]


def inputs(steps: int = 10, prompt: int = 0) -> dict[str, Any]:
    """What a pipeline is given for a prompt."""
    return {
        "prompt_embeds": drawn(1, WORDS, TEXT, seed=prompt),
        "negative_prompt_embeds": drawn(1, WORDS, TEXT, seed=1000),
        "height": 64,
        "width": 64,
        "num_frames": 9,
        "guidance_scale": 3.0,
        "latents": drawn(1, 4, 3, 8, 8, seed=2000),
        "num_inference_steps": steps,
        "output_type": "latent",
        "return_dict": False,
    }


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


Stop = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


def interrupting(after: int) -> Stop:
    """A callback that asks the pipeline to stop, as its documentation says."""

    def stop(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step >= after
        return given

    return stop


def failing(at: int) -> Stop:
    """A callback that fails."""

    def fail(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        return given if step < at else {"step": 1 // 0}

    return fail
