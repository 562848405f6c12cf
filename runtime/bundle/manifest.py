"""What a bundle says of itself: its model, plan, engines, weights, and the hash of every file.

A bundle is a folder. `manifest.json` names every file that belongs to it; what it does not name is
ignored. Files are named by their content (`compute.3f2a90c14d7e.onnx`), so a new build lies beside
the old one until its manifest takes the old one's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from turbo4d.runtime.signature import Signature
from turbo4d.runtime.variant_key import VariantKey

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"

TensorKind = Literal["input", "weight", "prologue", "slot", "flag", "output"]


@dataclass(frozen=True)
class TensorRow:
    """A tensor that an engine takes or gives.

    Args:
        name: in the engine's graph.
        kind: "input" of the call, "weight" or constant, value of the "prologue", "slot", "flag"
            (a boolean: whether a region is skipped), or "output" of the model or the prologue.
        source: for an input its name in the signature, for a weight its name in the bundle's
            weights, for a slot its name in a plan (once for each value of the region's cut), for a
            flag its region, else the position as a decimal number.
        shape: fixed.
        dtype: as torch names it, without "torch.".
    """

    name: str
    kind: TensorKind
    source: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class EngineRow:
    """One engine.

    Args:
        name: of its variant; "prologue", or "conditional" where one engine is all variants.
        takes: in the order of its graph; weights where the engine wants them from outside.
        gives: in the order of its graph: outputs, then slots.
        graph: the ONNX file, "" where the target keeps none.
        engine: the target's own file, "" where the graph is what runs.
        flops: of one call, as counted in its graph.
    """

    name: str
    takes: tuple[TensorRow, ...]
    gives: tuple[TensorRow, ...]
    graph: str = ""
    engine: str = ""
    flops: int = 0


@dataclass(frozen=True)
class VariantRow:
    """One variant of the plan, and what runs it.

    Args:
        key: of the variant.
        engine: name of its row among the engines.
        reads: slots it takes, once for each value of the region's cut, in the engine's order.
        writes: slots it gives, likewise.
    """

    key: VariantKey
    engine: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class WeightRow:
    """One weight or constant in the bundle's weight file.

    Args:
        name: in the state dict, or the constant's.
        offset: of its first byte.
        size_bytes: of it.
        shape: of it.
        dtype: as torch names it.
    """

    name: str
    offset: int
    size_bytes: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class FileRow:
    """A file of the bundle.

    Args:
        size_bytes: of it.
        sha256: of its bytes, in hex.
    """

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Target:
    """What the engines were built for.

    Args:
        name: of the lowering: "onnxruntime", "tensorrt", "tensorrt-rtx", "aot-inductor", ...
        device: "cpu", "cuda", "sm89", ...
        executed: whether the engines ran where they were built.
        settings: what else tells engines of one target apart, as texts.
    """

    name: str
    device: str
    executed: bool
    settings: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Manifest:
    """All that a bundle says of itself.

    Args:
        model: what people call it ("nano"), "" where it has no name of ours.
        signature: of the denoiser as the bundle runs it: its inputs alone, no weights.
        call: how the forward is called and what it returns; see `call_form`.
        dtype: that it computes in, as torch names it.
        target: what it was built for.
        plan: the plan's file.
        variants: of the plan, and the full ones that the runtime falls back to.
        engines: all, the prologue's included.
        prologue: name of the prologue's engine, None where nothing is hoisted.
        weights_file: the file that holds all weights, "" where engines hold their own.
        weights: what lies in it.
        files: every file but the manifest, by its path in the bundle, with forward slashes.
        made_with: versions of what built it, by distribution.
        built_in_s: seconds that each engine took to build, by name.
        schema_version: of the manifest.
    """

    model: str
    signature: Signature
    call: Mapping[str, object]
    dtype: str
    target: Target
    plan: str
    variants: tuple[VariantRow, ...]
    engines: tuple[EngineRow, ...]
    prologue: str | None
    weights_file: str
    weights: tuple[WeightRow, ...]
    files: Mapping[str, FileRow]
    made_with: Mapping[str, str]
    built_in_s: Mapping[str, float] = field(default_factory=dict[str, float])
    schema_version: int = SCHEMA_VERSION
