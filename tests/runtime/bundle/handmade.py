"""A bundle by hand: the denoiser of tests.runtime.fake, whose "graphs" a plain Python opener runs.

A graph's file is a text that names the variant, so that what a file holds decides what its engine
computes, as of any other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from turbo4d.runtime.action import Action
from turbo4d.runtime.bundle.bundle_files import Bundle
from turbo4d.runtime.bundle.manifest import (
    EngineRow,
    FileRow,
    Manifest,
    Target,
    TensorRow,
    VariantRow,
    WeightRow,
)
from turbo4d.runtime.bundle.manifest_file import to_json
from turbo4d.runtime.bundle.weights import BundleWeights
from turbo4d.runtime.errors import EngineError
from turbo4d.runtime.plan import Plan, VariantKey
from turbo4d.runtime.signature import Signature

from tests.runtime.fake import GEOMETRY, REGIONS, ROWS, denoise, plan_of

INPUTS = {"x": (6,), "t": (6,), "context": (2,)}
SLOT = (6,)
W = 1.5
SIGNATURE = Signature(
    names=tuple(INPUTS),
    kinds=("input",) * 3,
    sample=0,
    level=1,
    conditioning=(2,),
    regions=tuple(replace(each, slot_forms=((SLOT, torch.float32),)) for each in REGIONS),
    model="abc",
    geometry=GEOMETRY,
    weights_bytes=4,
)
CALL = {
    "parameters": [
        {"name": "x", "kind": "either", "default": None},
        {"name": "t", "kind": "either", "default": None},
        {"name": "cond", "kind": "either", "default": None},
        {"name": "scale", "kind": "keyword", "default": {"literal": 2}},
    ],
    "arguments": {
        "x": {"input": "x"},
        "t": {"input": "t"},
        "cond": {"dict": {"context": {"input": "context"}, "mode": {"literal": "plain"}}},
    },
    "inputs": [
        {"name": name, "shape": [*shape], "dtype": "float32"} for name, shape in INPUTS.items()
    ],
    "result": {"output": 0},
}
PLAN = plan_of(*ROWS)


def tensor(name: str, kind, source: str, shape=SLOT) -> TensorRow:
    return TensorRow(name, kind, source, tuple(shape), "float32")


def key_text(key: VariantKey) -> str:
    held = [[name, str(action)] for name, action in key.actions]
    return json.dumps({"actions": held, "writes": [*key.writes], "exact": key.exact})


def open_text(bundle: Bundle, row: EngineRow, weights: BundleWeights):
    """Stands in for a vendor's opener: the text of the graph says what is computed."""
    text = bundle.path(row.graph).read_text("utf-8")
    try:
        held = json.loads(text)
    except ValueError as error:
        raise EngineError(f"{row.graph} is no graph of the tests: {error}") from error
    weight = weights["w"]
    if held == "prologue":
        return lambda given: [weight.clone(), given[0].clone()]
    takes = [each for each in row.takes if each.kind != "weight"]
    outputs = [each for each in row.gives if each.kind == "slot"]

    def call(given: Sequence[Tensor]) -> list[Tensor]:
        assert len(given) == len(takes)
        found = {(each.kind, each.source): value for each, value in zip(takes, given, strict=True)}
        slots = {name: value for (kind, name), value in found.items() if kind == "slot"}
        flags = {name for (kind, name), on in found.items() if kind == "flag" and bool(on)}
        actions = {name: Action.parse(text) for name, text in held["actions"]}
        if held.get("flags"):
            actions = {name: Action("reuse") for name in flags}
        w, context = found.get(("prologue", "0"), weight), found.get(("prologue", "1"))
        args = [w, found["input", "x"], found["input", "t"]]
        args.append(found["input", "context"] if context is None else context)
        key = VariantKey(tuple(sorted(actions.items())), (), True)
        output, values = denoise(args, key, slots)
        made = [values.get(each.source, slots.get(each.source)) for each in outputs]
        return [output, *(value.clone() for value in made if value is not None)]

    return call


def keys_of(plan: Plan) -> list[VariantKey]:
    """The plan's, and the full ones that the runtime falls back to."""
    proof = plan.check(SIGNATURE.regions)
    used = {n for keys in proof.keys.values() for key in keys if key for n in key.reads}
    full = [VariantKey((), tuple(sorted(used)), plan.exact), VariantKey((), (), plan.exact)]
    return [*dict.fromkeys([*proof.variants, *full])]


def write_bundle(
    folder: Path,
    plan: Plan = PLAN,
    *,
    conditional: bool = False,
    hoists: bool = True,
    target: Target | None = None,
    suffix: str = ".graph",
    weight: float = W,
) -> Manifest:
    """Write a bundle; gives what its manifest says."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, FileRow] = {}

    def put(stem: str, suffix: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        name = f"{stem}.{digest[:12]}{suffix}"
        (folder / name).write_bytes(data)
        files[name] = FileRow(len(data), digest)
        return name

    data = torch.tensor([weight]).numpy().tobytes().ljust(64, b"\0")
    data += torch.arange(3.0).numpy().tobytes()
    weights_file = put("weights", ".bin", data)
    engines: list[EngineRow] = []
    variants: list[VariantRow] = []
    hoisted = (tensor("p0", "prologue", "0", (1,)), tensor("p1", "prologue", "1", (2,)))
    inputs = (tensor("x", "input", "x"), tensor("t", "input", "t"))
    inputs = (*inputs, *hoisted) if hoists else (*inputs, tensor("c", "input", "context", (2,)))
    weight_row = tensor("w", "weight", "w", (1,))
    if hoists:
        engines.append(
            EngineRow(
                "prologue",
                (tensor("c", "input", "context", (2,)), weight_row),
                (tensor("p0", "output", "0", (1,)), tensor("p1", "output", "1", (2,))),
                graph=put("prologue", suffix, b'"prologue"'),
            )
        )
    keys = keys_of(plan)
    regions = sorted({name for key in keys for name in (*dict(key.actions), *key.writes)})
    kept = sorted({name for key in keys for name in (*key.reads, *key.writes)})
    if conditional:
        takes = [tensor(f"slot_{name}", "slot", name) for name in kept]
        takes += [TensorRow(f"skip_{name}", "flag", name, (), "bool") for name in regions]
        gives = [tensor(f"new_{name}", "slot", name) for name in kept]
        data = json.dumps({"actions": [], "flags": regions}).encode()
        engines.append(
            EngineRow(
                "conditional",
                (*inputs, *takes),
                (tensor("out", "output", "0"), *gives),
                graph=put("conditional", suffix, data),
            )
        )
    for number, key in enumerate(keys):
        name = "conditional" if conditional else f"v{number}"
        variants.append(VariantRow(key, name, key.reads, key.writes))
        if conditional:
            continue
        takes = [tensor(f"slot_{each}", "slot", each) for each in key.reads]
        gives = [tensor(f"new_{each}", "slot", each) for each in key.writes]
        graph = put(name, suffix, key_text(key).encode())
        row = (*inputs[:2], weight_row, *inputs[2:], *takes)
        engines.append(EngineRow(name, row, (tensor("out", "output", "0"), *gives), graph=graph))
    manifest = Manifest(
        model="fake",
        signature=SIGNATURE,
        call=CALL,
        dtype="float32",
        target=target or Target("onnxruntime", "cpu", executed=True),
        plan=put("plan", ".json", plan.to_json().encode()),
        variants=tuple(variants),
        engines=tuple(engines),
        prologue="prologue" if hoists else None,
        weights_file=weights_file,
        weights=(
            WeightRow("w", 0, 4, (1,), "float32"),
            WeightRow("unused", 64, 12, (3,), "float32"),
        ),
        files=files,
        made_with={"torch": "0"},
        built_in_s={"v0": 0.5},
    )
    (folder / "manifest.json").write_text(to_json(manifest))
    return manifest
