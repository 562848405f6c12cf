"""`turbo4d bench --profile`: the variants of a plan profiled, as a table and as a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.flat_args import flat_args
from turbo4d.runtime.shipped_plans import preset_plan
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.tools.bench.gpu_network import Work, call_of, levels_of, network
from turbo4d.tools.bench.profiling import (
    OUTSIDE,
    SORTS,
    VariantProfile,
    innermost,
    kind_of,
    profile_variants,
)
from turbo4d.tools.bench.trace_file import write_trace
from turbo4d.tools.environment import device_name

PLAIN = VariantKey((), (), exact=False)
_REGIONS = 8
_LEGEND = """\
One step of each variant in ms. Rows: the attention that a call serves, its norms, projections and
feed-forwards with it ("other" serves none: residual blocks, changes of size). Columns: the sort of
work. Below: the regions that take most, each without the regions inside it."""
_SELF = ("spatial", "camera", "motion", "joint", "cross", "reference")


def profile_plan(
    work: Work,
    plan: str,
    *,
    runs: int = 5,
    say: Callable[[str], None] = lambda text: None,
) -> list[VariantProfile]:
    """Profiles the plain graph and every variant of a preset, under lowering eager.

    Args:
        work: network, device, dtype and steps.
        plan: a preset's name.
        runs: of each variant.
        say: told what is going on.
    """
    say(f"profile: capturing {work.model}")
    call = call_of(work)
    capture = capture_export(network(work), (), call)
    analysis = analyse(capture)
    keys = {PLAIN: work.steps} | keys_of(analysis, plan, levels_of(work))
    args = flat_args(capture, (), call)
    return profile_variants(analysis, args, keys, torch.device(work.device), runs=runs, say=say)


def keys_of(analysis: Analysis, plan: str, levels: Sequence[float]) -> dict[VariantKey, int]:
    """The variants of a preset, and how many steps run each."""
    regions = [region.info for region in analysis.regions]
    found = preset_plan(
        plan,
        levels=levels,
        model=analysis.capture.fingerprint,
        geometry=analysis.geometry,
        regions=regions,
    )
    return dict(Counter(found.variant("main", step, regions) for step in range(found.steps)))


def write_profile(
    work: Work,
    plan: str,
    trace: Path,
    *,
    runs: int = 5,
    say: Callable[[str], None] = lambda text: None,
) -> str:
    """Profiles, writes the trace, and gives the table.

    Args:
        work: as of `profile_plan`; likewise the others.
        plan: a preset's name.
        trace: the file.
        runs: of each variant.
        say: told what is going on.
    """
    profiles = profile_plan(work, plan, runs=runs, say=say)
    device = device_name(torch.device(work.device))
    title = f"turbo4d {work.model}, {work.dtype}, plan {plan}, eager, {device}"
    write_trace(profiles, title, trace)
    return f"{title}\n\n{_LEGEND}\n\n{table(profiles)}"


def table(profiles: Sequence[VariantProfile]) -> str:
    """Each variant: seconds by kind and sort of work, then the regions that take most."""
    return "\n\n".join(_one(profile) for profile in profiles)


def _one(profile: VariantProfile) -> str:
    total_s, plain_s = profile.seconds, profile.undisturbed_s
    head = (
        f"{profile.name}: {profile.steps} steps, {plain_s:.4g} s each; call by call, as below, "
        f"{total_s:.4g} s"
    )
    both = profile.by(lambda call: f"{call.kind}/{call.sort}")
    kinds = profile.by(kind_of)
    used = [sort for sort in SORTS if any(name.endswith(f"/{sort}") for name in both)]
    lines = [f"  {'kind':10} {'share':>6} {'ms':>9} " + " ".join(f"{s:>11}" for s in used)]
    for kind in [*(k for k in _SELF if k in kinds), *(k for k in kinds if k not in _SELF)]:
        cells = " ".join(f"{both.get(f'{kind}/{s}', 0) * 1e3:11.3f}" for s in used)
        lines.append(f"  {kind:10} {kinds[kind] / total_s:6.1%} {kinds[kind] * 1e3:9.3f} {cells}")
    return "\n".join([head, *lines, *_regions(profile)])


def _regions(profile: VariantProfile) -> list[str]:
    by_region = profile.by(innermost)
    rows = [("in no region" if name == OUTSIDE else name, s) for name, s in by_region.items()]
    rows = rows[:_REGIONS]
    lines = [f"  {name:32} {s / profile.seconds:6.1%} {s * 1e3:9.3f} ms" for name, s in rows]
    if len(by_region) > len(rows):
        rest = sum([*by_region.values()][_REGIONS:])
        lines.append(
            f"  {f'{len(by_region) - len(rows)} more regions':32} {rest / profile.seconds:6.1%} "
            f"{rest * 1e3:9.3f} ms"
        )
    return lines


def shares(profile: VariantProfile) -> Mapping[str, float]:
    """What part of the time each kind of attention takes, its blocks' feed-forwards included."""
    return {kind: seconds / profile.seconds for kind, seconds in profile.by(kind_of).items()}
