"""layers: the first value inside a graph that is not what plain torch had there.

Every value that was recorded when the bundle was built becomes an output of a copy of the graph;
the copy runs on the recorded inputs under ONNX Runtime, and is read in its order. Where an
engine is made of several operators fused into one, that copy is what it was before; where it is
all variants in one, it is the one that was recorded (`unfolding`).
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from turbo4d.compiler.bundle.comparison import difference
from turbo4d.compiler.bundle.recording import some_of
from turbo4d.compiler.bundle.unfolding import unfold
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.engines.onnxruntime import OnnxSession


@dataclass(frozen=True)
class Layer:
    """A value that is further from the recorded one than what it was computed from.

    Args:
        name: of the value.
        operator: that gives it.
        module: where in the model that is, "" where the graph does not say.
        error: relative, over the elements that were recorded.
    """

    name: str
    operator: str
    module: str
    error: float

    def __str__(self) -> str:
        where = f" of {self.module}" if self.module else ""
        return f"{self.operator} {self.name!r}{where}, {self.error:.2g} from the recorded values"


def first_wrong(
    graph: Path,
    weights: Mapping[int, Tensor],
    given: Mapping[str, Tensor],
    inside: Mapping[str, Tensor],
    tolerance: float,
    looser: Mapping[str, float],
) -> Layer | None:
    """The first value of a graph that is further than the tolerance from what was recorded.

    Args:
        graph: an ONNX file.
        weights: by their first byte in the file that the graph names.
        given: by name of the graph's inputs.
        inside: some elements of each value, and of each output, as `recording.some_of` takes them.
        tolerance: relative error.
        looser: by name, how many times that a value may have that is a difference of larger ones.

    Returns:
        None where every one is within: then no value inside is wrong by itself.

    Raises:
        LowerError: onnx or onnxruntime is not installed.
    """
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise LowerError(
                f"layers are told by running the graph, which needs the package {package}; install "
                "turbo4d[cpu]."
            )
    import onnx

    library: Any = onnx
    model = library.load(str(graph), load_external_data=False)
    unfold(library, model, given)
    marked = _mark(library, model, inside)
    everything = {**given, **_weights_as_inputs(library, model, weights)}
    with tempfile.TemporaryDirectory(prefix="turbo4d-verify-") as folder:
        path = Path(folder) / "marked.onnx"
        path.write_bytes(model.SerializeToString())
        session = OnnxSession(path)
    results = session([everything[form.name] for form in session.inputs])
    for form, result in zip(session.outputs, results, strict=True):
        if form.name not in marked:
            continue
        name = _recorded(form.name)
        error = difference(some_of(result), inside[name]).relative
        if not error <= tolerance * looser.get(name, 1.0):
            node = marked[form.name]
            return Layer(name, node.op_type, node.doc_string, error)
    return None


def _weights_as_inputs(
    library: Any, model: Any, weights: Mapping[int, Tensor]
) -> dict[str, Tensor]:
    """Makes inputs of a graph's weights, whose file is elsewhere; gives them by name."""
    found: dict[str, Tensor] = {}
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "offset":
                found[tensor.name] = weights[int(entry.value)]
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in found]
    for tensor in model.graph.initializer:
        if tensor.name in found:
            make = library.helper.make_tensor_value_info
            model.graph.input.append(make(tensor.name, tensor.data_type, tensor.dims))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return found


def _mark(library: Any, model: Any, inside: Mapping[str, Tensor]) -> dict[str, Any]:
    """Makes outputs of a graph's recorded values, in its order; gives the node behind each."""
    names = Counter(_recorded(name) for node in model.graph.node for name in node.output)
    known = library.shape_inference.infer_shapes(model).graph.value_info
    outputs = {info.name: info for info in model.graph.output}
    infos = {**{info.name: info for info in known}, **outputs}
    marked: dict[str, Any] = {}
    for node in model.graph.node:
        for name in node.output:
            # Of two values that branches call alike, nothing says which was recorded.
            if _recorded(name) in inside and name in infos and names[_recorded(name)] == 1:
                marked[name] = node
    del model.graph.output[:]
    model.graph.output.extend([infos[name] for name in marked])
    model.graph.output.extend([info for name, info in outputs.items() if name not in marked])
    return marked


def _recorded(name: str) -> str:
    """What a value is called in its variant: the name in a branch has the branch's before it."""
    return name.rpartition(".")[2]
