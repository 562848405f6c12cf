"""Weight files: safetensors only, read strictly, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .config import SV4DConfig
from .errors import CheckpointError
from .unet import SV4DUNet

PUBLIC_PREFIX = "model.diffusion_model."

_PICKLE_SUFFIXES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
_FLOATS = ("BF16", "F16", "F32", "F64")
_SHOWN = 3


def load_checkpoint(
    path: str | os.PathLike[str], target: SV4DUNet | SV4DConfig, device: str = "cpu"
) -> SV4DUNet:
    """Read the network's weights, every one and no other.

    Where names carry the public prefix `model.diffusion_model.`, only those are read, and the
    conditioner and the autoencoder beside them are left. Nothing is copied before all names,
    shapes and dtypes are known to fit.

    Args:
        path: a safetensors file, with or without the public prefix.
        target: the network to fill, keeping its dtype; or a configuration to build one from, in
            torch's default dtype.
        device: where the weights go if the network has none yet (a configuration, or "meta").

    Returns:
        The filled network.

    Raises:
        CheckpointError: for a pickle, an unreadable file, or weights that are not the network's.
    """
    path = Path(path)
    _refuse_pickle(path)
    model = SV4DUNet(target, device="meta") if isinstance(target, SV4DConfig) else target
    wanted = model.state_dict()
    try:
        with safe_open(path, framework="pt", device=device) as file:
            names = _inner_names(list(file.keys()))
            _compare(path, wanted, _headers(file, names))
            weights = {
                key: file.get_tensor(name).to(wanted[key].dtype) for key, name in names.items()
            }
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"load_checkpoint: {path} is not a readable safetensors file ({error})."
        ) from error
    on_meta = any(tensor.is_meta for tensor in wanted.values())
    model.load_state_dict(weights, strict=True, assign=on_meta)
    return model


def save_checkpoint(
    path: str | os.PathLike[str], model: SV4DUNet, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the network's weights under its own names; `path` is replaced in one step.

    Args:
        path: of the safetensors file; its folder must exist.
        model: the network, on any device but "meta".
        metadata: strings kept in the file's header.

    Raises:
        CheckpointError: where the file cannot be written; an older file is left as it was.
    """
    path = Path(path)
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(weights, partial, dict(metadata) if metadata else None)
        partial.replace(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"save_checkpoint: {path} cannot be written ({error}).") from error
    finally:
        partial.unlink(missing_ok=True)


def checkpoint_sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of the file's bytes, in hexadecimal.

    Raises:
        CheckpointError: where the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"checkpoint_sha256: {path} cannot be read ({error}).") from error


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(
            f"load_checkpoint: {path} cannot be read ({error.strerror})."
        ) from error
    # A safetensors file opens with its header's length, which may look like a pickle's first
    # bytes, and then a brace, which a pickle does not have there.
    pickled = head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and head[8:] != b"{"
    if path.suffix.lower() in _PICKLE_SUFFIXES or head[:4] == b"PK\x03\x04" or pickled:
        raise CheckpointError(
            f"load_checkpoint: {path} is a pickle, which can run code when it is read; "
            f"convert it to safetensors."
        )


def _inner_names(names: Sequence[str]) -> dict[str, str]:
    public = [name for name in names if name.startswith(PUBLIC_PREFIX)]
    if public:
        return {name.removeprefix(PUBLIC_PREFIX): name for name in public}
    return {name: name for name in names}


def _headers(file: safe_open, names: Mapping[str, str]) -> dict[str, tuple[list[int], str]]:
    slices = {key: file.get_slice(name) for key, name in names.items()}
    return {key: (list(part.get_shape()), part.get_dtype()) for key, part in slices.items()}


def _compare(
    path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, tuple[list[int], str]]
) -> None:
    missing = [repr(key) for key in sorted(wanted.keys() - found.keys())]
    unexpected = [repr(key) for key in sorted(found.keys() - wanted.keys())]
    shared = sorted(wanted.keys() & found.keys())
    shapes = [
        f"{key!r} is {found[key][0]}, wanted {list(wanted[key].shape)}"
        for key in shared
        if found[key][0] != list(wanted[key].shape)
    ]
    dtypes = [f"{key!r} is {found[key][1]}" for key in shared if found[key][1] not in _FLOATS]
    faults = [
        f"{len(culprits)} {fault} ({_first(culprits)})"
        for fault, culprits in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("mis-shaped", shapes),
            ("not floating point", dtypes),
        )
        if culprits
    ]
    if faults:
        raise CheckpointError(
            f"load_checkpoint: {path} does not hold this network's {len(wanted)} tensors: "
            f"{'; '.join(faults)}."
        )


def _first(culprits: Sequence[str]) -> str:
    return ", ".join([*culprits[:_SHOWN], *(["..."] if len(culprits) > _SHOWN else [])])
