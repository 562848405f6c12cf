"""What a manifest's rows must agree on: each name leads to a row, and both say one shape and dtype.

Held against each other is what the manifest itself says; the files come later.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod

from turbo4d.runtime.errors import BundleError
from turbo4d.runtime.region_info import RegionInfo
from turbo4d.runtime.signature import Signature

from .call_form import read_call
from .dtypes import dtype_named, name_of
from .engine_check import Known, check_engine, check_variant
from .manifest import MANIFEST, Manifest, WeightRow

ALIGNMENT = 64
_PART = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_manifest(manifest: Manifest) -> None:
    """Refuse a manifest that contradicts itself.

    Raises:
        BundleError: naming the row.
    """
    for path, row in manifest.files.items():
        _check_path(path)
        if not _SHA256.fullmatch(row.sha256):
            raise BundleError(f"file {path!r} has the sha256 {row.sha256!r}; wanted 64 hex digits.")
    _once("engine", (row.name for row in manifest.engines))
    _once("variant", (row.key.name + repr(row.key) for row in manifest.variants))
    _once("weight", (row.name for row in manifest.weights))
    _check_signature(manifest.signature)
    for what, path in _references(manifest):
        if path not in manifest.files:
            raise BundleError(f"{what} is file {path!r}, which is not among its files.")
    dtype_named(manifest.dtype)
    _check_weights(manifest)
    known = _known(manifest)
    for row in manifest.engines:
        check_engine(row, known, is_prologue=row.name == manifest.prologue)
    for row in manifest.variants:
        check_variant(row, known, manifest.prologue)
    if alone := sorted({*known.engines} - {row.engine for row in manifest.variants}
                       - {manifest.prologue}):  # fmt: skip
        raise BundleError(f"engine {alone[0]!r} is of no variant.")


def _known(manifest: Manifest) -> Known:
    """What rows may refer to."""
    call = read_call(manifest.call)
    names = [each.name for each in call.inputs]
    if [*manifest.signature.names] != names:
        raise BundleError(
            f"signature has the inputs {[*manifest.signature.names]} and the call {names}."
        )
    engines = {row.name: row for row in manifest.engines}
    if manifest.prologue is not None and manifest.prologue not in engines:
        raise BundleError(f"prologue {manifest.prologue!r} is none of its engines.")
    hoisted = () if manifest.prologue is None else engines[manifest.prologue].gives
    first = next((row for row in manifest.engines if row.name != manifest.prologue), None)
    outputs = [row for row in first.gives if row.kind == "output"] if first is not None else []
    if len(outputs) != call.outputs:
        raise BundleError(
            f"its engines give {len(outputs)} outputs; the call's result has {call.outputs}."
        )
    return Known(
        inputs={each.name: (each.shape, name_of(each.dtype)) for each in call.inputs},
        outputs=tuple((row.shape, row.dtype) for row in outputs),
        weights={row.name: (row.shape, row.dtype) for row in manifest.weights},
        prologue=tuple((row.shape, row.dtype) for row in hoisted),
        regions={region.name: region for region in manifest.signature.regions},
        engines=engines,
    )


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not all(_PART.fullmatch(part) for part in parts) or path == MANIFEST:
        raise BundleError(
            f"file {path!r} has a name that no bundle holds; wanted letters, digits, '_', '.', "
            "'+' and '-' between slashes, no part that begins with a dot."
        )


def _references(manifest: Manifest) -> Iterable[tuple[str, str]]:
    yield "the plan", manifest.plan
    if manifest.weights_file or manifest.weights:
        yield "the weights", manifest.weights_file
    for row in manifest.engines:
        if not (row.graph or row.engine):
            raise BundleError(f"engine {row.name!r} has neither a graph nor an engine.")
        for path in filter(None, (row.graph, row.engine)):
            yield f"engine {row.name!r}", path


def _check_weights(manifest: Manifest) -> None:
    if not manifest.weights:
        return
    whole = manifest.files[manifest.weights_file].size_bytes
    for row in manifest.weights:
        wanted = prod(row.shape) * dtype_named(row.dtype).itemsize
        if row.size_bytes != wanted:
            raise BundleError(
                f"weight {row.name!r} has {row.size_bytes} bytes; its shape takes {wanted}."
            )
        if row.offset % ALIGNMENT or row.offset + row.size_bytes > whole:
            raise BundleError(
                f"weight {row.name!r} lies at byte {row.offset}, {row.size_bytes} long; wanted a "
                f"multiple of {ALIGNMENT}, within the {whole} bytes of {manifest.weights_file!r}."
            )
    _check_overlap(manifest.weights)


def _check_overlap(rows: Iterable[WeightRow]) -> None:
    """Two weights share all their bytes, as tied ones do, or none."""
    last: WeightRow | None = None
    for row in sorted(rows, key=lambda row: (row.offset, row.size_bytes)):
        if not row.size_bytes:
            continue
        if last is not None and row.offset < last.offset + last.size_bytes:
            if (row.offset, row.size_bytes) != (last.offset, last.size_bytes):
                raise BundleError(f"weights {last.name!r} and {row.name!r} overlap.")
        last = row


def _check_signature(signature: Signature) -> None:
    if {*signature.kinds} != {"input"}:
        raise BundleError("signature: a bundle's has inputs alone, at least one.")
    _once("input", signature.names)
    _once("region", (region.name for region in signature.regions))
    count = len(signature.names)
    used = [signature.sample, *signature.conditioning, *signature.invariant]
    used += [] if signature.level is None else [signature.level]
    if beyond := [at for at in used if at >= count]:
        raise BundleError(f"signature: input {beyond[0]} is beyond its {count} inputs.")
    regions = {region.name: region for region in signature.regions}
    for region in signature.regions:
        for other in (region.parent, region.relevance):
            if other is not None and other not in regions:
                raise BundleError(f"region {region.name!r} names the unknown {other!r}.")
        _check_nesting(region, regions)


def _check_nesting(region: RegionInfo, regions: Mapping[str, RegionInfo]) -> None:
    seen = {region.name}
    outer = region.parent
    while outer is not None:
        if outer in seen:
            raise BundleError(f"region {region.name!r} lies within itself.")
        seen.add(outer)
        outer = regions[outer].parent
        if outer is not None and outer not in regions:
            raise BundleError(f"region {region.name!r} lies within the unknown {outer!r}.")


def _once(what: str, names: Iterable[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise BundleError(f"{what} {twice[0]!r} stands twice.")
