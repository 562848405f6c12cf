"""What the plain graphs gave when a bundle was built, as one file: what `verify` compares with.

`reference.<hash>.safetensors` holds tensors, each content once, and an index of JSON in its header:

    calls   one call of each variant and of the prologue: all that it took and gave, and what some
            elements of every value inside were (`Recorded.inside`), so that a layer can be named
    steps   what went into the denoiser and came out at each step of the run they were taken from
    result  what the run was for, where it said so
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from turbo4d.runtime.errors import Turbo4DError

SCHEMA_VERSION = 1
STEM = "reference"
INSIDE = 32
"""Elements kept of each value inside a graph, evenly spaced."""

Slots = tuple[tuple[str, Tensor], ...]


@dataclass(frozen=True)
class Recorded:
    """One call of one engine.

    Args:
        name: of the variant, or "prologue".
        step: of the run.
        inputs: all inputs of the call, by their names in the signature.
        prologue: all values of the prologue; none for the prologue itself and plain variants.
        slots_in: name and value, in the variant's order.
        outputs: of the model, or the prologue's values.
        slots_out: name and value, in the variant's order.
        inside: by name of a value inside the graph, `INSIDE` of its elements in float32.
        sizes: for each of `slots_out` that is a difference, by its position, the larger 2-norm of
            the two that it was taken from.
    """

    name: str
    step: int
    inputs: Mapping[str, Tensor]
    prologue: tuple[Tensor, ...]
    slots_in: Slots
    outputs: tuple[Tensor, ...]
    slots_out: Slots
    inside: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    sizes: Mapping[int, float] = field(default_factory=dict[int, float])


@dataclass(frozen=True)
class Step:
    """One call of the denoiser in the run.

    Args:
        stream: of the plan.
        step: of it.
        inputs: by their names in the signature.
        outputs: flat.
    """

    stream: str
    step: int
    inputs: Mapping[str, Tensor]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Reference:
    """One run of the plain graphs under the plan.

    Args:
        calls: by name of the variant.
        steps: of the run, in order.
        result: what it was for; None where it gave no tensor.
    """

    calls: Mapping[str, Recorded]
    steps: tuple[Step, ...]
    result: Tensor | None = None


def reference_bytes(reference: Reference) -> bytes:
    """The file of a reference."""
    store = _Store()
    index = {
        "schema_version": SCHEMA_VERSION,
        "calls": [_written(call, store) for call in reference.calls.values()],
        "steps": [
            {
                "stream": step.stream,
                "step": step.step,
                "inputs": store.mapping(step.inputs),
                "outputs": store.list(step.outputs),
            }
            for step in reference.steps
        ],
        "result": None if reference.result is None else store.put(reference.result),
    }
    return save(store.tensors, {STEM: json.dumps(index)})


def read_reference(path: Path) -> Reference:
    """A reference from its file.

    Raises:
        Turbo4DError: it holds none, or one of a newer version.
    """
    try:
        opened: Any = safe_open(path, framework="pt")
        with opened:
            metadata: Mapping[str, str] = opened.metadata() or {}
            index: Any = json.loads(metadata[STEM])
            names: list[str] = opened.keys()
            tensors: dict[str, Tensor] = {name: opened.get_tensor(name) for name in names}
        if (version := index["schema_version"]) != SCHEMA_VERSION:
            raise Turbo4DError(
                f"{path.name} has schema version {version}; this turbo4d reads {SCHEMA_VERSION}. "
                "Verify with the version that built the bundle, or build it again."
            )
        calls = [_read(row, tensors) for row in index["calls"]]
        return Reference(
            {call.name: call for call in calls},
            tuple(
                Step(
                    row["stream"],
                    row["step"],
                    _mapping(row["inputs"], tensors),
                    _list(row["outputs"], tensors),
                )
                for row in index["steps"]
            ),
            None if index["result"] is None else tensors[index["result"]],
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise Turbo4DError(
            f"{path.name} holds no reference ({type(error).__name__}: {error}); build the bundle "
            "again."
        ) from error


class _Store:
    """Tensors by name, each content once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}

    def put(self, value: Tensor) -> str:
        flat = value.detach().cpu().contiguous()
        data = flat.reshape(-1).view(torch.uint8).numpy()
        key = flat.dtype, tuple(flat.shape), hashlib.sha256(data.tobytes()).digest()
        if key not in self._names:
            self._names[key] = f"tensor_{len(self._names)}"
            self.tensors[self._names[key]] = flat.clone()
        return self._names[key]

    def list(self, values: Sequence[Tensor]) -> list[str]:
        return [self.put(value) for value in values]

    def mapping(self, values: Mapping[str, Tensor]) -> dict[str, str]:
        return {name: self.put(value) for name, value in values.items()}


def _written(call: Recorded, store: _Store) -> dict[str, Any]:
    return {
        "name": call.name,
        "step": call.step,
        "inputs": store.mapping(call.inputs),
        "prologue": store.list(call.prologue),
        "slots_in": [[name, store.put(value)] for name, value in call.slots_in],
        "outputs": store.list(call.outputs),
        "slots_out": [[name, store.put(value)] for name, value in call.slots_out],
        "inside": list(call.inside),
        "inside_values": store.put(torch.stack([*call.inside.values()])) if call.inside else None,
        "sizes": {str(at): size for at, size in call.sizes.items()},
    }


def _read(row: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Recorded:
    held = row["inside_values"]
    inside = dict(zip(row["inside"], tensors[held], strict=True)) if held else {}
    return Recorded(
        row["name"],
        row["step"],
        _mapping(row["inputs"], tensors),
        _list(row["prologue"], tensors),
        tuple((name, tensors[value]) for name, value in row["slots_in"]),
        _list(row["outputs"], tensors),
        tuple((name, tensors[value]) for name, value in row["slots_out"]),
        inside,
        {int(at): float(size) for at, size in row.get("sizes", {}).items()},
    )


def _mapping(row: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[value] for name, value in row.items()}


def _list(row: Sequence[str], tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return tuple(tensors[value] for value in row)
