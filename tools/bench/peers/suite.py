"""Suite `peers`: packages of others on models that they cover, turbo4d on the same ones.

Networks of `diffusers` with random weights, in the sampling loops of its pipelines: a figure of
fidelity says how far a latent is from the uncached one of the same seed, no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from turbo4d.tools.bench.row import RowResult, RowSpec
from turbo4d.tools.bench.suite import Job, SuiteOptions
from turbo4d.tools.failures import CallError, JobError

from .offers import OFFERS, Offer

# Size -> its models, and those of them that torch's compiler is also run on.
MODELS = {
    "tiny": (
        "stable_diffusion", "svd", "cogvideox", "wan", "hunyuan_video", "ltx_video", "latte",
    ),
    "mid": ("svd", "cogvideox", "wan"),
}  # fmt: skip
COMPILED = {"tiny": ("stable_diffusion", "svd", "cogvideox"), "mid": ()}
_PRESETS = ("exact", "quality", "balanced", "fast")
_UNDER_INDUCTOR = ("exact", "balanced")
_RUNS = {"tiny": 11, "mid": 3}
_APART_DB = 3.0  # peers closer than this share a calibrated plan
_MOST_PLANS = 3
_HIGHEST_DB = 60.0  # beyond it a row has reused next to nothing
_MARGIN_DB = 1.0  # a plan is found on other examples than the one it is judged by


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
    known = [(size, model) for size, models in MODELS.items() for model in models]
    if options.model is not None:
        named = [each for each in known if "-".join(each) == options.model]
        if not named:
            choices = ", ".join(sorted("-".join(each) for each in known))
            raise CallError(f"--model {options.model!r} is not in suite 'peers'; choose {choices}.")
        return named
    if options.quick:
        return [("tiny", "svd"), ("tiny", "cogvideox")]
    return known


def _group(size: str, model: str, options: SuiteOptions) -> list[RowSpec]:
    def row(system: str, lowering: str = "", label: str = "", **settings: Any) -> RowSpec:
        return _row(size, model, options, system, lowering, label, **settings)

    compiled = not options.quick and model in COMPILED[size]
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
        warmups=1,
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
    """Whether a peer is faster than the uncached network by more than the clock's noise."""
    if not row.spec.system.startswith("peer:") or row.error or row.latency_s is None:
        return False
    faster = bool(row.baseline) and row.latency_s < min(row.baseline)
    return faster and float(row.facts.get("psnr_db", math.inf)) <= _HIGHEST_DB


def _beats(ours: RowResult, theirs: RowResult) -> bool:
    """Whether a row of turbo4d is as fast and as faithful."""
    if ours.error or not (ours.latency_s and theirs.latency_s and ours.baseline):
        return False
    faithful = float(ours.facts["psnr_db"]) >= float(theirs.facts["psnr_db"])
    # Each against the uncached runs of its own rounds.
    shares = [row.latency_s / median(row.baseline) for row in (ours, theirs) if row.latency_s]
    return faithful and shares[0] <= shares[1]


def _targets(peers_db: Sequence[float]) -> list[float]:
    """Whole dB to calibrate to, each for the peers a little below it; the highest are kept."""
    found: list[float] = []
    for decibels in sorted(peers_db, reverse=True):
        wanted = float(math.ceil(decibels + _MARGIN_DB))
        if not found or found[-1] - wanted > _APART_DB:
            found.append(wanted)
    return found if len(found) <= _MOST_PLANS else [found[0], found[len(found) // 2], found[-1]]


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
    from .operations import operations_share
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
        share = operations_share(made, system, made.example(settings["seed"]))
        return {"operations_share": share}

    return PeerJob(made, system, settings["seed"], folder, says)
