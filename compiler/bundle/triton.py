"""triton: a bundle for ONNX Runtime that NVIDIA's Triton Inference Server serves as it is.

    BUNDLE/triton/<model>/config.pbtxt     what the server is told of the model
    BUNDLE/triton/<model>/1/model.py       hands over to runtime/engines/triton.py

`tritonserver --model-repository=BUNDLE/triton`, with turbo4d installed for its Python backend. A
sequence of requests is one sampling run (START, END and CORRID controls).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from turbo4d.compiler.bundle.onnxruntime import OnnxRuntimeTarget
from turbo4d.runtime.bundle.call_form import read_call
from turbo4d.runtime.bundle.dtypes import name_of
from turbo4d.runtime.bundle.manifest import Manifest, TensorRow
from turbo4d.runtime.errors import OptionError

FOLDER = "triton"
CANDIDATES = 4
"""Sequences that one instance serves at a time; others wait."""
IDLE_US = 60_000_000
"""After how long without a request the server gives a sequence up."""

_TYPES = {
    "bfloat16": "BF16", "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "int8": "INT8", "uint8": "UINT8",
}  # fmt: skip
MODEL = '''\
"""Served by turbo4d; which bundle, config.pbtxt says, else the one that this folder lies in."""

from turbo4d.runtime.engines.triton import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


class TritonTarget(OnnxRuntimeTarget):
    """ONNX Runtime's engines, and a model repository beside them.

    Args:
        name: "triton".
        device: "cpu", "cuda", or "" for "cpu".
        settings: those of target "onnxruntime".

    Raises:
        OptionError: a device or a setting that it has not.
    """

    def __init__(self, name: str, device: str, settings: Mapping[str, str]) -> None:
        if device not in ("", "cpu", "cuda"):
            raise OptionError(
                f"target '{name}:{device}' is unknown; choose '{name}:cpu' or '{name}:cuda'."
            )
        super().__init__("onnxruntime", device, settings, name)

    def further_files(self, manifest: Manifest) -> Mapping[str, bytes]:
        """The model repository."""
        name = re.sub(r"[^A-Za-z0-9_-]", "_", manifest.model) or "turbo4d"
        place = f"{FOLDER}/{name}"
        return {
            f"{place}/config.pbtxt": config_text(name, manifest).encode(),
            f"{place}/1/model.py": MODEL.encode(),
        }


def config_text(name: str, manifest: Manifest) -> str:
    """The model's configuration, as the server's protocol buffer in text.

    Args:
        name: of the model, and of its folder.
        manifest: of the bundle.
    """
    signature = manifest.signature
    kept = {signature.names[at] for at in signature.conditioning}
    inputs = [
        _tensor("input", each.name, each.shape, name_of(each.dtype), each.name in kept)
        for each in read_call(manifest.call).inputs
    ]
    outputs = [
        _tensor("output", f"output_{at}", row.shape, row.dtype)
        for at, row in enumerate(_given(manifest))
    ]
    kind = "KIND_CPU" if manifest.target.device == "cpu" else "KIND_GPU"
    return "\n".join(
        [
            f"name: {_text(name)}",
            'backend: "python"',
            "max_batch_size: 0",
            *inputs,
            *outputs,
            "sequence_batching {",
            f"  max_sequence_idle_microseconds: {IDLE_US}",
            f"  oldest {{ max_candidate_sequences: {CANDIDATES} }}",
            *_control("START", "kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1]"),
            *_control("END", "kind: CONTROL_SEQUENCE_END int32_false_true: [0, 1]"),
            *_control("CORRID", "kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64"),
            "}",
            f"instance_group {{ kind: {kind} count: 1 }}",
            'parameters { key: "bundle" value { string_value: "" } }',
            "",
        ]
    )


def _given(manifest: Manifest) -> list[TensorRow]:
    engine = next(row for row in manifest.engines if row.name != manifest.prologue)
    return [row for row in engine.gives if row.kind == "output"]


def _tensor(field: str, name: str, shape: Sequence[int], dtype: str, optional: bool = False) -> str:
    sides = ", ".join(map(str, shape or (1,)))
    words = [f"name: {_text(name)}", f"data_type: TYPE_{_TYPES[dtype]}", f"dims: [{sides}]"]
    if not shape:
        words.append("reshape { shape: [] }")
    if optional:
        words.append("optional: true")
    return f"{field} {{ {' '.join(words)} }}"


def _control(name: str, how: str) -> list[str]:
    return ["  control_input {", f"    name: {_text(name)}", f"    control {{ {how} }}", "  }"]


def _text(value: str) -> str:
    """A quoted string; JSON's is one of the protocol buffer's too."""
    return json.dumps(value)
