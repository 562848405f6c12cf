"""jetson-orin, jetson-thor: a kit, since TensorRT builds engines only on the device that runs them.

The bundle holds graphs, weights, plan and a script, and runs as it is under ONNX Runtime. On the
device `bash build.sh` has the vendor's own trtexec build an engine of each graph, its weights
inputs, then puts the engines into the manifest. The precision is the graph's (strongly typed).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import metadata, util

import torch
from turbo4d.compiler.bundle.targets import BuildRequest, Built, refuse_settings
from turbo4d.compiler.bundle.tensorrt import weight_rows
from turbo4d.compiler.errors import LowerError
from turbo4d.runtime.bundle.manifest import Manifest
from turbo4d.runtime.engines.tensorrt import why_not_computed
from turbo4d.runtime.engines.weight_inputs import weights_as_inputs
from turbo4d.runtime.errors import EngineError, OptionError

DEVICES = {"jetson-orin": "sm87", "jetson-thor": "sm110"}
SETTINGS = {"workspace_mib": "memory that the builder may use, in MiB; trtexec's own default else"}


class JetsonTarget:
    """Makes the kit.

    Args:
        name: of `DEVICES`.
        device: "" or what `DEVICES` says.
        settings: of `SETTINGS`.

    Raises:
        OptionError: another device, or a setting that it has not.
    """

    suffix = ".onnx"
    keeps_graphs = True

    def __init__(self, name: str, device: str, settings: Mapping[str, str]) -> None:
        refuse_settings(name, settings, SETTINGS)
        if device not in ("", DEVICES[name]):
            raise OptionError(
                f"target '{name}:{device}' is for {DEVICES[name]} alone; write {name!r}."
            )
        memory = settings.get("workspace_mib", "1")
        if not memory.isdecimal() or int(memory) < 1:
            raise OptionError(
                f"target {name!r}: setting workspace_mib is {memory!r}; wanted a positive whole "
                "number."
            )
        self.name = name
        self.device = DEVICES[name]
        self._settings = dict(settings)

    def reasons(self) -> tuple[str, ...]:
        """What is not installed."""
        if util.find_spec("onnx") is None:
            return ("the package onnx is not installed; install turbo4d[edge]",)
        return ()

    def why_not_in(self, dtypes: Collection[torch.dtype]) -> str | None:
        """As TensorRT."""
        return why_not_computed(self.device, dtypes)

    def settings(self) -> Mapping[str, str]:
        """As they were given."""
        return self._settings

    def versions(self) -> Mapping[str, str]:
        """Of what writes the graphs."""
        return {"onnx": metadata.version("onnx")}

    def build(self, request: BuildRequest) -> Built:
        """Write the graph that the device builds the engine of.

        Raises:
            LowerError: the graph cannot be read.
        """
        try:
            model = weights_as_inputs(request.graph)
        except EngineError as error:
            raise LowerError(f"variant {request.name!r}: {error}") from error
        path = request.scratch / f"engine{self.suffix}"
        path.write_bytes(model.SerializeToString())
        inputs = tuple(value.name for value in model.graph.input)
        return Built(
            engine=path,
            takes=(*request.takes, *weight_rows(request, inputs)),
            gives=request.gives,
            executed=False,
            facts={"graph_nodes": len(model.graph.node)},
        )

    def further_files(self, manifest: Manifest) -> Mapping[str, bytes]:
        """The script and its notes: the same for every bundle, so that one may be built anew."""
        return {
            "build.sh": build_script(self.name, self._settings).encode(),
            "KIT.md": _NOTES.format(name=self.name, device=self.device).encode(),
        }


def build_script(name: str, settings: Mapping[str, str]) -> str:
    """The script that runs on the device.

    Args:
        name: of the target.
        settings: of the target.
    """
    memory = settings.get("workspace_mib")
    flags = f" --memPoolSize=workspace:{memory}" if memory else ""
    return _SCRIPT.format(name=name, flags=flags, device=DEVICES[name])


_SCRIPT = """\
#!/usr/bin/env bash
# Builds the engines of this bundle on the device that runs them ({name}): bash build.sh
# What was built stays in built/, so that a build that was stopped goes on; remove that folder after
# an update of TensorRT.
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"

trtexec=${{TRTEXEC:-$(command -v trtexec || true)}}
trtexec=${{trtexec:-/usr/src/tensorrt/bin/trtexec}}
python=${{PYTHON:-python3}}
if [[ ! -x $trtexec ]]; then
    echo "build.sh: trtexec is neither on PATH nor at $trtexec; install libnvinfer-bin or set" \\
        "TRTEXEC." >&2
    exit 1
fi
if ! "$python" -c 'import turbo4d'; then
    echo "build.sh: $python has no turbo4d; install it, or set PYTHON." >&2
    exit 1
fi
if ! rows=$("$python" -m turbo4d.runtime.bundle.add_engines . --list); then
    exit 1
fi
mkdir -p built

build() {{
    if [[ -s $2 ]]; then
        echo "built before: $2"
        return
    fi
    echo "building $2"
    "$trtexec" --onnx="$1" --saveEngine="$2.partial" --stronglyTyped --noTF32 --skipInference \\
        --timingCacheFile=built/timing.cache{flags} >"$2.log" 2>&1 </dev/null || {{
        tail -n 20 "$2.log" >&2
        echo "build.sh: trtexec built no engine of $1; its output is in $2.log." >&2
        exit 1
    }}
    mv "$2.partial" "$2"
}}

while IFS=$'\\t' read -r graph made; do
    build "$graph" "$made"
done <<<"$rows"

"$python" -m turbo4d.runtime.bundle.add_engines . --device {device}
"""

_NOTES = """\
# A turbo4d bundle for {name}

As it is, `turbo4d.load` runs it under ONNX Runtime, from its graphs. For TensorRT engines, on the
device, with JetPack's TensorRT 10 or later and turbo4d installed:

    bash build.sh

It builds an engine of each graph with trtexec and puts them into `manifest.json`, with their
hashes; from then on `turbo4d.load` opens them ({device}). `TRTEXEC` and `PYTHON` name other
programs. The script was tested with a stand-in for trtexec; it has not been run on a device.

The engines take their weights from `turbo4d.load`, which reads them once for all. An engine works
with the TensorRT version and the GPU it was built with: after an update remove `built/` and build
again.
"""
