"""Suite `peers`: packages of others on models that they cover, turbo4d on the same ones.

Networks of `diffusers` with random weights, in the sampling loops of its pipelines: a figure of
fidelity says how far a latent is from the uncached one of the same seed, no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.bench.suite import Job, SuiteOptions
from turbo4d.tools.failures import CallError, JobError

from .offers import OFFERS, Offer

# What tells most first: networks so large that Python no longer counts, then the kin of sv4d.
CASES = (
    ("mid", "cogvideox"), ("mid", "svd"), ("tiny", "svd"), ("tiny", "stable_diffusion"),
    ("tiny", "cogvideox"), ("tiny", "wan"), ("tiny", "hunyuan_video"), ("tiny", "ltx_video"),
    ("tiny", "latte"), ("mid", "wan"),
)  # fmt: skip
COMPILED = (("tiny", "svd"),)  # those that torch's compiler is also run on: a minute a row
_PRESETS = ("exact", "quality", "balanced", "fast")
_UNDER_INDUCTOR = ("exact", "balanced")
_RUNS = {"tiny": 15, "mid": 2}
_WARMUPS = {"tiny": 1, "mid": 0}  # after the first run, which is a whole sample
# What plans are calibrated to; a peer has the lowest beside it that lies above its own fidelity by
# the margin, for a plan is found on other examples than the one it is judged by.
LADDER_DB = (25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0, 60.0)
_MARGIN_DB = 0.5


def rows(options: SuiteOptions) -> list[RowSpec]:
    """The rows of each model, uncached first.

    Args:
        options: with `quick`, the tiny UNet of SVD and the tiny CogVideoX, nothing compiled; with
            `model`, that one, such as "tiny-svd".
    """
    found: list[RowSpec] = []
    for size, model in _cases(options):
        found += _group(size, model, options)
    return found


def _cases(options: SuiteOptions) -> list[tuple[str, str]]:
    if options.model is not None:
        named = [each for each in CASES if "-".join(each) == options.model]
        if not named:
            choices = ", ".join(sorted("-".join(each) for each in CASES))
            raise CallError(f"--model {options.model!r} is not in suite 'peers'; choose {choices}.")
        return named
    if options.quick:
        return [("tiny", "svd"), ("tiny", "cogvideox")]
    return [*CASES]


def _group(size: str, model: str, options: SuiteOptions) -> list[RowSpec]:
    def row(system: str, lowering: str = "", label: str = "", **settings: Any) -> RowSpec:
        return _row(size, model, options, system, lowering, label, **settings)

    compiled = not options.quick and (size, model) in COMPILED
    offers = [offer for offer in OFFERS if model in offer.models]
    found = [row("eager")]
    if compiled:
        found.append(row("inductor", compile=True))
    for offer in offers:
        found.append(_offered(row, offer, compile=False))
        if compiled and offer.compiled:
            found.append(_offered(row, offer, compile=True))
    found += [row(f"turbo4d:{preset}", "eager", plan=preset) for preset in _PRESETS]
    if compiled:
        found += [row(f"turbo4d:{preset}", "inductor", plan=preset) for preset in _UNDER_INDUCTOR]
    return found


def _offered(row: Any, offer: Offer, *, compile: bool) -> RowSpec:
    label = f"{offer.label}, compiled" if compile else offer.label
    return row(
        f"peer:{offer.package}",
        "",
        label,
        offer=offer.label,
        given=dict(offer.settings),
        compile=compile,
    )


def _row(
    size: str,
    model: str,
    options: SuiteOptions,
    system: str,
    lowering: str,
    label: str,
    plan: str = "",
    **settings: Any,
) -> RowSpec:
    return RowSpec(
        suite="peers", group=f"{size}-{model}", system=system, plan=plan, lowering=lowering,
        label=label,
        settings={"model": model, "size": size, "seed": options.seed, **settings},
        warmups=_WARMUPS[size],
        runs=options.runs or (2 if options.quick else _RUNS[size]),
    )  # fmt: skip


def follow_ups(results: Sequence[RowResult], options: SuiteOptions) -> list[RowSpec]:
    """Rows of turbo4d with plans calibrated to at least the fidelity of peers that no preset beats.

    Args:
        results: of one model.
        options: of the call.
    """
    found: list[RowSpec] = []
    presets = [row for row in results if row.spec.system.startswith("turbo4d:")]
    ahead = [row for row in results if _gains(row) and not any(_beats(p, row) for p in presets)]
    compiled = any(row.spec.settings.get("compile") for row in results)
    for target in _targets([float(row.facts["psnr_db"]) for row in ahead]):
        of = results[0].spec.settings
        for lowering in ("eager", "inductor") if compiled else ("eager",):
            row = _row(
                of["size"], of["model"], options, "turbo4d:calibrated", lowering, f"{target:g} dB",
                plan="calibrated", min_psnr_db=target,
            )  # fmt: skip
            found.append(row)
    return found


def _gains(row: RowResult) -> bool:
    """Whether a peer is faster than the uncached network, by the medians that the table shows."""
    if not row.spec.system.startswith("peer:") or row.error or row.latency_s is None:
        return False
    return bool(row.baseline) and row.latency_s < median(row.baseline)


def _beats(ours: RowResult, theirs: RowResult) -> bool:
    """Whether a row of turbo4d is as fast and as faithful."""
    if ours.error or not (ours.latency_s and theirs.latency_s and ours.baseline):
        return False
    faithful = float(ours.facts["psnr_db"]) >= float(theirs.facts["psnr_db"])
    # Each against the uncached runs of its own rounds.
    shares = [row.latency_s / median(row.baseline) for row in (ours, theirs) if row.latency_s]
    return faithful and shares[0] <= shares[1]


def _targets(peers_db: Sequence[float]) -> list[float]:
    """The rungs of the ladder that stand beside peers; above the last there is `exact` alone."""
    wanted = (
        next((rung for rung in LADDER_DB if rung >= decibels + _MARGIN_DB), None)
        for decibels in peers_db
    )
    return sorted({rung for rung in wanted if rung is not None}, reverse=True)


def prepare(spec: RowSpec, folder: Path) -> Job:
    """The job of a row.

    Raises:
        JobError: a package is missing or does not load.
    """
    from .cases import case
    from .peer_job import PeerJob
    from .prepared import Prepared, compiled
    from .turbo import TurboJob

    settings = spec.settings
    made = case(settings["model"], settings["size"])
    seed = settings["seed"]
    if spec.system.startswith("turbo4d:"):
        plan: Any = spec.plan
        if spec.plan == "calibrated":
            from .calibrated import calibrated

            plan = calibrated(made, settings["min_psnr_db"], folder)
        return TurboJob(made, plan, spec.lowering, seed, folder)
    if spec.system.startswith("peer:"):
        return _prepare_peer(spec, made, folder)
    network: Any = made.network
    system = Prepared(compiled(network) if settings.get("compile") else network)
    return PeerJob(made, system, seed, folder)


def _prepare_peer(spec: RowSpec, made: Any, folder: Path) -> Job:
    from .operations import operations_share, share_note
    from .peer_job import PeerJob

    package, settings = spec.system.removeprefix("peer:"), spec.settings
    offer = next(
        each for each in OFFERS if (each.package, each.label) == (package, settings["offer"])
    )
    module: Any = import_module(f".{offer.module}", __package__)
    try:
        system = module.prepare(made, compile=settings["compile"], **settings["given"])
    except ImportError as error:
        raise JobError(
            f"the package {package!r} does not load here ({error}); run: {module.INSTALL}"
        ) from error

    def says() -> dict[str, Any]:
        share = operations_share(made, system, made.example(settings["seed"]), folder)
        return {"operations_share": share, "note": share_note(share, looks=offer.looks)}

    return PeerJob(made, system, settings["seed"], folder, says)
