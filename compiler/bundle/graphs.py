"""graphs: the parts of a bundle as ONNX files, each proven to be one."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.lower.onnx_export import write_graph
from turbo4d.compiler.lower.onnx_rules.blame import AHEAD
from turbo4d.runtime.bundle.manifest import WeightRow

from .part import Part
from .weights_file import PlacedWeights

SUFFIX = ".onnx"


def reasons() -> tuple[str, ...]:
    """Why no graph can be written on this machine; none where one can."""
    if importlib.util.find_spec("onnx") is None:
        return ("the package onnx is not installed; install turbo4d[cpu]",)
    return ()


def write_part(
    part: Part,
    path: Path,
    weights: Path,
    rows: Mapping[str, WeightRow],
    values: Mapping[str, Tensor],
) -> None:
    """Write a part's graph, then check it: the standard's own checker and strict shape inference.

    Args:
        part: to write.
        path: of the graph, in the folder of `weights`.
        weights: the file that holds them all.
        rows: by name where each lies.
        values: by name each weight.

    Raises:
        LowerError: an operator that has no ONNX form, or a graph that is not as the standard says.
    """
    held = {placeholder: rows[name] for placeholder, name in part.held.items()}
    tensors = {placeholder: values[name] for placeholder, name in part.held.items()}
    outputs = [row.name for row in part.gives]
    said = f"engine {part.name!r}"
    places = PlacedWeights(weights, held)
    written = write_graph(said, part.module, tensors, outputs, path, places, AHEAD)
    wanted = tuple(row.name for row in part.takes)
    if written.inputs != wanted:
        raise LowerError(
            f"{said} takes {list(written.inputs)} in its graph; wanted {list(wanted)}."
        )
    check_graph(said, path)


def check_graph(said: str, path: Path) -> None:
    """Refuse a file that is no ONNX graph, or one whose shapes contradict its operators.

    Args:
        said: what it is, for messages.
        path: of the graph, its weights beside it.

    Raises:
        LowerError: with what the checker found.
    """
    import onnx

    library: Any = onnx
    try:
        library.checker.check_model(str(path), full_check=True)
    except (library.checker.ValidationError, library.shape_inference.InferenceError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise LowerError(
            f"{said} was written as an ONNX graph that its checker refuses: {first.strip()}; "
            "report it, with the model and the plan."
        ) from error
