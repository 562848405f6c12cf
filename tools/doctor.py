"""`turbo4d doctor`: what this machine can run and build, and why not where it cannot."""

from __future__ import annotations

import argparse
import importlib.util
import platform
from importlib import metadata
from typing import Any

from turbo4d.tools.options import LOWERINGS
from turbo4d.tools.outcome import Outcome
from turbo4d.tools.parser import Parser

SUMMARY = "Say what this machine can run, and why each lowering is or is not usable."
EXAMPLE = "turbo4d doctor --json"
DETAILS = """\
Lowerings run graphs in the process that compiled them; targets are what turbo4d build makes bundles
for: whether this machine can build one, and run its engines as they were built.
"""

# Lowering -> (import name, distribution) of the library that it needs.
_LIBRARY = {
    "inductor": ("torch", "torch"),
    "aot-inductor": ("torch", "torch"),
    "onnxruntime": ("onnxruntime", "onnxruntime"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt-rtx"),
    "tensorrt": ("tensorrt", "tensorrt"),
    "torch-tensorrt": ("torch_tensorrt", "torch-tensorrt"),
}


def configure(parser: Parser) -> None:
    """No options of its own."""


def run(args: argparse.Namespace) -> Outcome:
    """Look around; imports torch, and those vendors' libraries that are there."""
    data = examine()
    return Outcome(data, describe(data))


def examine() -> dict[str, Any]:
    """What --json prints."""
    import torch
    from turbo4d.compiler.bundle.store import store_folder
    from turbo4d.compiler.bundle.store_size import bound_bytes, stored_bytes
    from turbo4d.models.nano import weights_path
    from turbo4d.tools.environment import commit, device_name
    from turbo4d.tools.target_probe import as_rows, probe_targets

    cuda = torch.cuda.is_available()
    return {
        "turbo4d": metadata.version("turbo4d"),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "cpu": device_name(torch.device("cpu")),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda": {"usable": cuda, "reason": _cuda_reason(cuda)},
        "nano_weights": {"usable": weights_path().is_file(), "reason": _weights_reason()},
        "lowerings": [_lowering(name, built) for name, built in LOWERINGS.items()],
        "targets": as_rows(probe_targets()),
        "engine_store": {
            "folder": str(store_folder()),
            "size_bytes": stored_bytes(store_folder()),
            "bound_bytes": bound_bytes(),
        },
    }


def describe(data: dict[str, Any]) -> str:
    """What people read."""
    from turbo4d.tools.target_probe import as_lines

    lines = [
        f"turbo4d {data['turbo4d']} (commit {data['commit'] or 'unknown'}), "
        f"Python {data['python']}, torch {data['torch']}",
        f"{data['cpu']}, {data['cpu_capability']}, {data['threads']} threads, {data['platform']}",
        f"cuda          {_yes(data['cuda'])}",
        f"nano weights  {_yes(data['nano_weights'])}",
        "",
        "lowerings",
    ]
    width = max(len(row["name"]) for row in data["lowerings"])
    lines += [f"  {row['name']:<{width}}  {_yes(row)}" for row in data["lowerings"]]
    lines += ["", "targets of turbo4d build", *as_lines(data["targets"])]
    store = data["engine_store"]
    lines += [
        "",
        f"engine store  {store['folder']}: {store['size_bytes'] / 2**20:.0f} MiB of at most "
        f"{store['bound_bytes'] / 2**20:.0f} (TURBO4D_ENGINE_STORE_MIB)",
    ]
    return "\n".join(lines)


def _yes(row: dict[str, Any]) -> str:
    return f"{'usable' if row['usable'] else 'not usable'}: {row['reason']}"


def _cuda_reason(usable: bool) -> str:
    import torch

    if usable:
        major, minor = torch.cuda.get_device_capability()
        return f"{torch.cuda.get_device_name()}, sm{major}{minor}, CUDA {torch.version.cuda}"
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    return "torch was built with CUDA, but sees no device"


def _weights_reason() -> str:
    from turbo4d.models.nano import weights_path

    path = weights_path()
    if path.is_file():
        return f"{path.name}, {path.stat().st_size / 2**20:.1f} MiB"
    missing = f"{path.name} is missing; use --model tiny, or train it with"
    return f"{missing} tools/training/train_nano.py"


def _lowering(name: str, built: bool) -> dict[str, Any]:
    if name == "eager":
        return {"name": name, "usable": True, "reason": "plain torch, on the CPU and on CUDA"}
    if name == "inductor":
        return {"name": name, **_inductor()}
    if name == "native":
        return {"name": name, **_native()}
    if name == "triton-kernels":
        return {"name": name, **_triton_kernels()}
    if built:
        usable = importlib.util.find_spec(_LIBRARY[name][0]) is not None
        return {"name": name, "usable": usable, "reason": _library(name)}
    return {
        "name": name,
        "usable": False,
        "reason": f"no lowering yet, but a target of turbo4d build; {_library(name)}",
    }


def _inductor() -> dict[str, Any]:
    import torch
    from turbo4d.compiler.lower.compat import inductor_lacks

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    lacks = {device: inductor_lacks(torch.device(device)) for device in devices}
    rows = [f"on {device}, {why or 'nothing is missing'}" for device, why in lacks.items()]
    return {"usable": None in lacks.values(), "reason": "; ".join(rows)}


def _native() -> dict[str, Any]:
    import torch
    from turbo4d.compiler.lower.compat import inductor_lacks
    from turbo4d.compiler.lower.row_kernels import row_kernels_lack

    lacks = row_kernels_lack() or inductor_lacks(torch.device("cpu"))
    return {"usable": lacks is None, "reason": f"on cpu, {lacks or 'nothing is missing'}"}


def _triton_kernels() -> dict[str, Any]:
    import torch
    from turbo4d.runtime.tiny_attention import missing

    if not torch.cuda.is_available():
        return {"usable": False, "reason": "its kernels run on CUDA, and torch sees no device"}
    lacks = missing(torch.device("cuda"))
    return {"usable": lacks is None, "reason": f"on cuda, {lacks or 'nothing is missing'}"}


def _library(name: str) -> str:
    module, distribution = _LIBRARY[name]
    if importlib.util.find_spec(module) is None:
        return f"its library {distribution} is not installed"
    try:
        return f"its library {distribution} {metadata.version(distribution)} is installed"
    except metadata.PackageNotFoundError:
        return f"its library {distribution} is installed"
