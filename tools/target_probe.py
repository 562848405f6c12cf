"""What `turbo4d doctor` says of targets: what bundles this machine can build, and run as built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Probed(NamedTuple):
    """One target.

    Args:
        name: as --target takes it.
        builds: why nothing can be built for it here; none where it can.
        runs: why its engines cannot run here; "" where they can.
        versions: of its libraries.
    """

    name: str
    builds: tuple[str, ...]
    runs: str
    versions: Mapping[str, str]


def probe_targets() -> list[Probed]:
    """Every target, and each of its devices; imports the vendors' libraries that are there."""
    from turbo4d.compiler.bundle.targets import target_of

    found: list[Probed] = []
    for name, runs in {**_STATIC, **_rtx()}.items():
        target = target_of(name)
        found.append(Probed(name, tuple(target.reasons()), runs(), target.versions()))
    return found


def as_rows(found: list[Probed]) -> list[dict[str, Any]]:
    """The same as JSON takes it."""
    return [
        {
            "name": each.name,
            "builds": not each.builds,
            "builds_reason": "; ".join(each.builds),
            "runs": not each.runs,
            "runs_reason": each.runs,
            "versions": dict(each.versions),
        }
        for each in found
    ]


def as_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The same for people."""
    width = max(len(row["name"]) for row in rows)
    return [f"  {row['name']:<{width}}  {_told(row)}" for row in rows]


def _told(row: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    end = f" ({versions})" if versions else ""
    if not row["builds"] and row["builds_reason"] == row["runs_reason"]:
        return f"neither builds nor runs: {row['runs_reason']}{end}"
    builds = "builds" if row["builds"] else f"does not build: {row['builds_reason']}"
    runs = "runs" if row["runs"] else f"does not run: {row['runs_reason']}"
    return f"{builds}; {runs}{end}"


def _onnxruntime(device: str) -> Callable[[], str]:
    def probe() -> str:
        from turbo4d.runtime.engines.onnxruntime import why_not_here

        return why_not_here(device) or ""

    return probe


def _aot(device: str) -> Callable[[], str]:
    def probe() -> str:
        import torch

        lacks = device == "cuda" and not torch.cuda.is_available()
        return "torch sees no CUDA device" if lacks else ""

    return probe


def _tensorrt(target: str, device: str = "") -> Callable[[], str]:
    def probe() -> str:
        import torch
        from turbo4d.runtime.engines.tensorrt import library
        from turbo4d.runtime.errors import EngineError

        try:
            library(target)
        except EngineError as error:
            return str(error).rstrip(".")
        if not torch.cuda.is_available():
            return "it runs on a GPU, and torch sees none here"
        major, minor = torch.cuda.get_device_capability()
        here = f"sm{major}{minor}"
        return "" if device in ("", here) else f"it is for {device}, and this GPU is {here}"

    return probe


def _only(reason: str) -> Callable[[], str]:
    return lambda: reason


_STATIC: Mapping[str, Callable[[], str]] = {
    "aot-inductor": _aot("cpu"),
    "aot-inductor:cuda": _aot("cuda"),
    "jetson-orin": _only("its engines are built on the device and run there"),
    "jetson-thor": _only("its engines are built on the device and run there"),
    "onnxruntime": _onnxruntime("cpu"),
    "onnxruntime:cuda": _onnxruntime("cuda"),
    "onnxruntime:tensorrt": _onnxruntime("tensorrt"),
    "onnxruntime:tensorrt-rtx": _onnxruntime("tensorrt-rtx"),
    "tensorrt": _tensorrt("tensorrt"),
    "torch-tensorrt": _tensorrt("tensorrt"),
    "triton": _onnxruntime("cpu"),
}


def _rtx() -> dict[str, Callable[[], str]]:
    """Of TensorRT-RTX, every GPU that it builds for; one row where it is not there."""
    from turbo4d.runtime.engines.tensorrt_build import devices
    from turbo4d.runtime.errors import EngineError

    try:
        known = devices("tensorrt-rtx")
    except EngineError:
        known = ("sm89",)
    return {f"tensorrt-rtx:{device}": _tensorrt("tensorrt-rtx", device) for device in known}
