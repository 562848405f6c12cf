"""verification: each engine of a bundle against what plain torch gave when it was built.

First every file is what the manifest says. Then the engines run as they were built, or others in
their place, and are held against the recorded reference (`engine_checks`); the rows of what was
found are `findings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from turbo4d.compiler.bundle.engine_checks import EngineChecks
from turbo4d.compiler.bundle.findings import AS_BUILT, STAND_IN, Checked, Verification, looked_at
from turbo4d.compiler.bundle.reference import STEM, Reference, read_reference
from turbo4d.runtime.bundle.load import checked_manifest, load, reasons_as_built
from turbo4d.runtime.bundle.manifest import Manifest
from turbo4d.runtime.errors import BundleError


def verify(
    path: Path,
    *,
    allow_native: bool = False,
    device: str = "auto",
    strict: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Verification:
    """Check a bundle.

    Args:
        path: of it.
        allow_native: whether it may run code of its own.
        device: see `runtime.bundle.load`.
        strict: whether nothing stands in for engines that cannot run here.
        say: told what is being done.

    Raises:
        BundleError: a file is not what the manifest says.
    """
    say("checking the files")
    manifest = checked_manifest(path)
    rows, denoiser, by = list[Checked](), None, AS_BUILT
    try:
        denoiser = load(path, allow_native=allow_native, device=device, strict=True)
    except BundleError:
        reasons = reasons_as_built(path, allow_native=allow_native, device=device)
        if not any(reasons.values()):
            raise
        rows += _not_run(manifest, _each(reasons))
        by = STAND_IN
        if not strict:
            denoiser = load(path, allow_native=allow_native, device=device)
    if denoiser is None:
        return Verification(manifest, tuple(rows), "", None, None)
    manifest = denoiser.manifest
    reference = _reference(path, manifest)
    if reference is None:
        reason = "the bundle holds no reference; build it without --no-reference"
        rows += _not_run(
            manifest, dict.fromkeys((row.name for row in manifest.engines), reason), by
        )
        return Verification(manifest, tuple(rows), "", None, denoiser)
    found = EngineChecks(path, denoiser, reference, by, allow_native)
    for name in found.names:
        say(f"running {name}")
        rows.append(found.engine(name))
    say("running the whole plan")
    rows.append(found.run())
    return Verification(manifest, tuple(rows), found.measured_by, reference, denoiser)


def _reference(path: Path, manifest: Manifest) -> Reference | None:
    names = [name for name in manifest.files if Path(name).name.startswith(f"{STEM}.")]
    return read_reference(path / names[0]) if names else None


def _not_run(
    manifest: Manifest, reasons: Mapping[str, str], by: str = AS_BUILT
) -> Iterator[Checked]:
    """A row for each that is looked at, with the reason of its engine."""
    engines = {row.key.name: row.engine for row in manifest.variants}
    for name in looked_at(manifest):
        yield Checked(name, by, "not run", reasons[engines.get(name, name)])


def _each(reasons: Mapping[str, str]) -> dict[str, str]:
    """The reasons, and another engine's for one that has none: all run as built, or none does."""
    first = next(name for name, reason in reasons.items() if reason)
    said = f"it runs here as it was built, and engine {first!r} of the same bundle does not"
    return {name: reason or said for name, reason in reasons.items()}
