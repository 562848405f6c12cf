"""Both guidance branches of one stream's conditioning: what they hold, their check, their file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .errors import ConditioningError

KEYS = ("concat", "cond_motion", "cond_view", "crossattn", "vector")


@dataclass(frozen=True)
class Branches:
    """Conditioning of F frames x V views with and without guidance, image order (f v).

    Args:
        c: conditional branch: `crossattn` [1, F, K] image embedding per frame, `vector`
            [F*V, A] camera angles and augmentation, `concat` [F*V, 4, h, w] latents of the input
            frames, `cond_view` [V, 4, h, w] and `cond_motion` [F, 4, h, w] reference latents.
        uc: unconditional branch, the same keys and shapes.
        frames: F.
        views: V.

    Raises:
        ConditioningError: a key is missing or unknown, a shape is wrong, or the tensors differ
            in dtype or device.
    """

    c: Mapping[str, Tensor]
    uc: Mapping[str, Tensor]
    frames: int
    views: int

    def __post_init__(self) -> None:
        branches = (("c", self.c), ("uc", self.uc))
        for name, branch in branches:
            _check_keys(name, branch)
        wanted = _wanted_shapes(self.c, self.frames, self.views)
        for name, branch in branches:
            _check_kind(name, branch, self.c["concat"])
            for key in KEYS:
                if tuple(branch[key].shape) != wanted[key]:
                    raise ConditioningError(
                        f"{name}.{key} has shape {_shape(branch[key].shape)}; {self.frames} frames "
                        f"x {self.views} views want {_shape(wanted[key])}."
                    )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Branches:
        """The same conditioning on another device or in another dtype (the model's)."""
        c, uc = (
            {key: value.to(device=device, dtype=dtype) for key, value in branch.items()}
            for branch in (self.c, self.uc)
        )
        return Branches(c, uc, self.frames, self.views)

    def apart(self) -> dict[str, dict[str, Tensor]]:
        """Model inputs of each branch for a call of its own: "uncond" and "cond", in this order.

        Returns:
            Per branch the keys as they are, and `image_only_indicator` [1, F*V] of ones.
        """
        ones = self.c["concat"].new_ones(1, self.frames * self.views)
        return {
            name: {**{key: branch[key] for key in KEYS}, "image_only_indicator": ones}
            for name, branch in (("uncond", self.uc), ("cond", self.c))
        }

    def joined(self) -> dict[str, Tensor]:
        """Model inputs, the unconditional branch first; join once, before the loop.

        Returns:
            Each key concatenated along its first axis, and `image_only_indicator` [2, F*V] of
            ones (the public model asks for it; no output depends on it).
        """
        inputs = {key: torch.cat([self.uc[key], self.c[key]]) for key in KEYS}
        images = self.frames * self.views
        inputs["image_only_indicator"] = inputs["concat"].new_ones(2, images)
        return inputs


def load_conditioning(path: str | Path, frames: int, views: int) -> dict[str, Branches]:
    """Read the conditioning of every stream in a safetensors file.

    Args:
        path: file of tensors named `<stream>.<c|uc>.<key>`, for instance
            `dense0.backward.uc.cond_view`.
        frames: F, frames per pass.
        views: V, views per pass.

    Returns:
        Both branches by stream, on the CPU, in the file's dtype.

    Raises:
        ConditioningError: the file cannot be read, or a name, shape or dtype in it is wrong.
    """
    where = f"conditioning file {str(path)!r}"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConditioningError(f"{where} cannot be read: {error}.") from error
    if not tensors:
        raise ConditioningError(f"{where} holds no tensor.")
    streams: dict[str, dict[str, dict[str, Tensor]]] = {}
    for name, tensor in sorted(tensors.items()):
        stream, branch, key = ("", "", *name.rsplit(".", 2))[-3:]
        if not stream or branch not in ("c", "uc"):
            raise ConditioningError(f"{where}: {name!r} is not named '<stream>.<c|uc>.<key>'.")
        streams.setdefault(stream, {"c": {}, "uc": {}})[branch][key] = tensor
    loaded: dict[str, Branches] = {}
    for stream, pair in streams.items():
        try:
            loaded[stream] = Branches(pair["c"], pair["uc"], frames, views)
        except ConditioningError as error:
            raise ConditioningError(f"{where}, stream {stream!r}: {error}") from error
    return loaded


def _check_keys(name: str, branch: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(set(KEYS) - set(branch)), sorted(set(branch) - set(KEYS))
    if missing or unknown:
        parts = [f"lacks {_quoted(missing)}"] if missing else []
        parts += [f"has unknown {_quoted(unknown)}"] if unknown else []
        raise ConditioningError(
            f"branch {name!r} {' and '.join(parts)}; its keys are {_quoted(KEYS)}."
        )


def _check_kind(name: str, branch: Mapping[str, Tensor], like: Tensor) -> None:
    for key in KEYS:
        value = branch[key]
        same = (value.dtype, value.device) == (like.dtype, like.device)
        if not same or not value.is_floating_point():
            raise ConditioningError(
                f"{name}.{key} is {_kind(value)} and c.concat is {_kind(like)}; all tensors must "
                "share one floating dtype and one device."
            )


def _wanted_shapes(
    c: Mapping[str, Tensor], frames: int, views: int
) -> dict[str, tuple[int | str, ...]]:
    """Shapes that c's free sizes (h, w, K, A) imply; a letter where c's own rank is wrong."""
    images = frames * views
    size = tuple(c["concat"].shape[2:]) if c["concat"].ndim == 4 else ("h", "w")
    width = c["crossattn"].shape[-1] if c["crossattn"].ndim == 3 else "K"
    angles = c["vector"].shape[-1] if c["vector"].ndim == 2 else "A"
    return {
        "concat": (images, 4, *size),
        "cond_motion": (frames, 4, *size),
        "cond_view": (views, 4, *size),
        "crossattn": (1, frames, width),
        "vector": (images, angles),
    }


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _kind(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} on {value.device}"


def _shape(sizes: Iterable[int | str]) -> str:
    return "(" + ", ".join(str(size) for size in sizes) + ")"
