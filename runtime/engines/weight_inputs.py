"""A graph whose weights are inputs: one copy of them serves the engines of all variants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from turbo4d.runtime.errors import EngineError


def weights_as_inputs(graph: Path, *, keep: bool = False) -> Any:
    """Read a graph and make inputs of the weights that lie beside it; no weight is read.

    Small ones that stand in the graph itself, and constants, stay what they are.

    Args:
        graph: an ONNX file.
        keep: leave them initialisers.

    Returns:
        The graph as ONNX's own object; new inputs are the last, in the order of the initialisers.

    Raises:
        EngineError: onnx is not installed, or the file is no graph.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise EngineError("an engine is built with the package onnx; install it.") from error
    library: Any = onnx
    try:
        model = library.load(graph, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise EngineError(f"{graph.name} is no ONNX graph ({error}).") from error
    if not keep:
        held = model.graph.initializer
        outside = [weight for weight in held if weight.external_data]
        inside = [weight for weight in held if not weight.external_data]
        model.graph.input.extend(
            library.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
            for weight in outside
        )
        del held[:]
        held.extend(inside)
    return model
