"""load: a bundle's folder becomes a denoiser, once all of it has been checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from turbo4d.runtime.errors import BundleError, PlanError
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.variant_key import VariantKey

from .bundle_files import Bundle, check_files
from .denoiser import BundleDenoiser
from .ladder import Ladder
from .manifest import Manifest
from .manifest_file import read_manifest
from .weights import BundleWeights

_TRIES = 3


def load(
    path: str | os.PathLike[str],
    *,
    allow_native: bool = False,
    device: str = "auto",
    strict: bool = False,
) -> BundleDenoiser:
    """Loads what `turbo4d.build` wrote, without the compiler.

    Args:
        path: of the bundle, a folder.
        allow_native: whether files that hold native code may be loaded (AOTInductor): they can do
            whatever you can, so only where you trust who built them.
        device: "cpu", "cuda" or "cuda:1"; "auto" for the one it was built for where this machine
            has it, else for the CPU.
        strict: whether engines that cannot run as they were built are an error, instead of an
            event.

    Returns:
        The denoiser, to be called like the module that it was built from.

    Raises:
        BundleError: naming the file, where any part is damaged, missing, of a newer schema or
            contradicts another, or where its engines run nowhere here.
    """
    folder = Path(path)
    manifest = checked_manifest(folder)
    plan = _plan(folder, manifest)
    devices = _devices(device, manifest.target.device)
    bundle = Bundle(folder, manifest, devices[0], allow_native)
    ladder = Ladder(bundle, BundleWeights(bundle), devices, strict=strict)
    # Where the engines run is known once one is open; it is one that every run needs.
    ladder.open(next(row for row in manifest.engines if row.name != manifest.prologue))
    try:
        return BundleDenoiser(bundle, plan, ladder)
    except PlanError as error:
        raise BundleError(f"{folder / manifest.plan}: {error}") from error


def reasons_as_built(
    folder: Path, *, allow_native: bool = False, device: str = "auto"
) -> Mapping[str, str]:
    """Why each engine of a bundle does not run here as it was built, by name; "" where it does.

    Args:
        folder: of the bundle.
        allow_native: see `load`.
        device: see `load`.

    Raises:
        BundleError: a file is not what the manifest says, or the device is not here.
    """
    manifest = checked_manifest(folder)
    devices = _devices(device, manifest.target.device)
    bundle = Bundle(folder, manifest, devices[0], allow_native)
    ladder = Ladder(bundle, BundleWeights(bundle), devices, strict=True)
    return {row.name: "; ".join(ladder.reasons_against(row)) for row in manifest.engines}


def checked_manifest(folder: Path) -> Manifest:
    """The manifest, once every file is what it says.

    A builder may put another bundle in this one's place meanwhile and remove its files: then it is
    the other that is loaded.

    Args:
        folder: of the bundle.

    Raises:
        BundleError: naming the file that is not.
    """
    manifest = read_manifest(folder)
    for left in reversed(range(_TRIES)):
        try:
            check_files(folder, manifest)
            return manifest
        except BundleError:
            newer = read_manifest(folder)
            if not left or newer == manifest:
                raise
            manifest = newer
    return manifest


def _plan(folder: Path, manifest: Manifest) -> Plan:
    """The plan, once it is known that every engine it can need is there."""
    path = folder / manifest.plan
    try:
        plan = Plan.load(path)
        proof = plan.check(manifest.signature.regions)
    except PlanError as error:
        raise BundleError(f"{path}: {error}") from error
    needed = {*proof.variants, VariantKey((), (), plan.exact)}
    for keys in proof.keys.values():  # what a run falls back to where a slot holds nothing
        used = {name for key in keys if key is not None for name in key.reads}
        needed.add(VariantKey((), tuple(sorted(used)), plan.exact))
    held = {row.key for row in manifest.variants}
    if missing := sorted(key.name for key in needed - held):
        raise BundleError(
            f"{path}: the plan can need variant {missing[0]!r}, which the bundle does not hold; "
            "build it anew."
        )
    return plan


def _devices(asked: str, target: str) -> list[str]:
    """The devices to try, in order."""
    if asked == "auto":
        on_gpu = target != "cpu" and torch.cuda.is_available()
        return ["cuda", "cpu"] if on_gpu else ["cpu"]
    if asked == "cpu":
        return ["cpu"]
    kind, _, number = asked.partition(":")
    if kind != "cuda" or not (number.isdecimal() or asked == "cuda"):
        raise BundleError(f"device {asked!r} is unknown; wanted 'auto', 'cpu', 'cuda' or 'cuda:0'.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise BundleError(
            f"device {asked!r} is not here; torch sees {count} GPUs. Leave it 'auto'."
        )
    return [asked]
