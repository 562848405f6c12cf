"""The findings of explain for a reader at a terminal; rows that say the same share a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from turbo4d.compiler.costs import flops_by_kind, folded_sites
from turbo4d.compiler.plan_cost import by_pattern
from turbo4d.runtime.plan_text import picture

if TYPE_CHECKING:
    from turbo4d.compiler.explain import Explanation

Row = tuple[str, ...]
_DEAD_SHOWN = 5
_SPELLINGS = 4


def text_of(info: Explanation) -> str:
    """All findings, a paragraph each."""
    parts = [
        f"{info.model}: {info.params:,} parameters; {info.analysis.geometry}",
        f"one call: {flops_text(info.flops_per_call)}\n{table(kind_rows(info))}",
        _sites(info),
        f"regions: {counted(region.kind for region in info.regions)}; of each, its operations and "
        f"its slot\n{table(region_rows(info))}",
        _exact(info),
        _plan(info),
        _orders(info),
        _pruned(info),
        f"operations of a step, as a share of a call that computes all, and its {times_title(info)}"
        f"\n{table(step_rows(info))}",
        *(f"unclassified: {name}: {reason}" for name, reason in info.unclassified.items()),
    ]
    return "\n\n".join(part for part in parts if part)


def kind_rows(info: Explanation) -> list[Row]:
    """Operations of a call by kind, with their share."""
    return [
        (kind, flops_text(flops), f"{flops / info.flops_per_call:.1%}")
        for kind, flops in flops_by_kind(info.analysis).items()
    ]


def site_rows(info: Explanation) -> list[Row]:
    """Count, kind, tokens, heads and groups, names: sites that are alike share a row.

    Cross-attention is alike where it has as many keys, whatever asks.
    """
    rows: dict[Row, list[str]] = {}
    queries: dict[Row, list[int]] = {}
    for site in info.sites:
        crossed = site.kind in ("cross", "reference")
        size = () if crossed else (f"{site.heads} heads", f"{site.groups} groups")
        tokens = "" if crossed else str(site.query_tokens)
        row = (site.kind, tokens, str(site.key_tokens), *(size or ("", "")), site.note)
        rows.setdefault(row, []).append(site.name)
        queries.setdefault(row, []).append(site.query_tokens)
    return [
        (str(len(names)), row[0], f"{_span(queries[row])} x {row[2]}", *row[3:], _starred(names))
        for row, names in rows.items()
    ]


def region_rows(info: Explanation) -> list[Row]:
    """Count, kind, operations of each, bytes of its slot, names; regions that are alike share."""
    rows: dict[Row, list[str]] = {}
    for region in info.regions:
        size = bytes_text(region.slot_bytes)
        part = region.name.rpartition(".")[2] if region.kind == "block" else ""
        rows.setdefault((region.kind, flops_text(region.flops), size, part), []).append(region.name)
    return [(str(len(names)), *row[:3], _starred(names)) for row, names in rows.items()]


def step_rows(info: Explanation) -> list[Row]:
    """Steps that cost the same, their share of a call, their operations, their predicted time."""
    steps: dict[tuple[int, str], list[int]] = {}
    for step, (flops, taken) in enumerate(zip(info.cost.by_step, info.times.by_step, strict=True)):
        steps.setdefault((flops, seconds_text(taken)), []).append(step)
    rows = [
        (f"{'step' if len(of) == 1 else 'steps'} {ranges(of)}", *_share(flops, info), taken)
        for (flops, taken), of in steps.items()
    ]
    if info.plan.exact:
        taken = seconds_text(info.times.prologue_s)
        rows.append(("once per run (prologue)", *_share(info.cost.prologue_flops, info), taken))
    return rows


def times_title(info: Explanation) -> str:
    """What is predicted, for which machine, and the whole run."""
    times = info.times
    return (
        f"time as predicted for {times.machine.name}; a run takes "
        f"{seconds_text(times.run_s)}, uncached {seconds_text(times.uncached_s)}, "
        f"{times.uncached_s / times.run_s:.2f} times as long"
    )


def dead_text(info: Explanation) -> str:
    """The weights that no step reads, counted by how their names end."""
    dead = info.cost.dead_weights
    if not dead:
        return "dead weights: none"
    patterns = by_pattern(dead)
    shown = [f"{count} x {name}" for name, count, _ in patterns[:_DEAD_SHOWN]]
    more = f", {len(patterns) - _DEAD_SHOWN} more kinds" if len(patterns) > _DEAD_SHOWN else ""
    size = bytes_text(sum(dead.values()))
    return f"dead weights, which no step reads: {len(dead)}, {size}: {', '.join(shown)}{more}"


def plan_title(info: Explanation) -> str:
    """The plan in one line."""
    whole = info.plan.steps * info.flops_per_call
    return (
        f"plan {info.plan.name!r} over {info.plan.steps} steps ({info.schedule}): "
        f"{len(info.check.variants)} variants, slots of up to "
        f"{bytes_text(info.check.peak_bytes)}, {info.cost.total / whole:.1%} of the operations of "
        "plan none"
    )


def _sites(info: Explanation) -> str:
    folded = len(folded_sites(info.analysis)) if info.plan.exact else 0
    kinds = counted(site.kind for site in info.sites)
    rows = table(site_rows(info))
    aside = [f"{one.node} over {one.over}" for one in info.analysis.aside]
    off = f"\noff the sample's path, so no sites: {', '.join(aside)}" if aside else ""
    return f"sites, one an attention: {kinds}; {folded} with one key fold exactly\n{rows}{off}"


def _exact(info: Explanation) -> str:
    if not info.plan.exact:
        return ""
    cost = info.cost
    return (
        f"exact passes: what no step changes is computed once per run and stream, and held: "
        f"{cost.prologue_values} values of {bytes_text(cost.prologue_bytes)}\n{dead_text(info)}"
    )


def order_rows(info: Explanation) -> list[Row]:
    """Regions that are extrapolated: values of a slot, its bytes, orders and steps, names."""
    sizes = info.check.slot_bytes
    rows: dict[Row, list[str]] = {}
    for name, depth in sorted(info.check.depth.items()):
        if depth == 1:
            continue
        at: dict[tuple[str, str], list[int]] = {}
        for stream, steps in info.check.orders.items():
            for step, orders in enumerate(steps):
                if name in orders:
                    fitted = name in info.check.fits[stream][step]
                    how = "fitted weights" if fitted else f"reuse({orders[name]})"
                    at.setdefault((stream, how), []).append(step)
        told = "; ".join(
            f"{how} at {ranges(of)}" + (f" of {stream}" if len(info.check.orders) > 1 else "")
            for (stream, how), of in at.items()
        )
        row = (f"{depth} values", bytes_text(depth * sizes[name]), told)
        rows.setdefault(row, []).append(name)
    return [(str(len(names)), *row, _starred(names)) for row, names in rows.items()]


def _orders(info: Explanation) -> str:
    rows = order_rows(info)
    return (
        f"slots that are extrapolated or mixed, and what they hold\n{table(rows)}" if rows else ""
    )


def prune_rows(info: Explanation) -> list[Row]:
    """Regions that are pruned: tokens kept, what that saves and adds, at which steps, names."""
    streams = len(info.check.keys)
    return [
        (
            str(len(one.regions)),
            f"{one.gain.kept} of {one.gain.tokens} tokens",
            f"saves {flops_text(one.gain.flops_saved)} and {bytes_text(one.gain.bytes_saved)}",
            f"adds {bytes_text(one.gain.bytes_added)}",
            f"{one.seconds_saved * 1e3:+.2g} ms",
            f"at {ranges(one.steps)}" + (f" of {one.stream}" if streams > 1 else ""),
            _starred(one.regions),
        )
        for one in info.pruned
    ]


def _pruned(info: Explanation) -> str:
    rows = prune_rows(info)
    if not rows:
        return ""
    title = f"pruned regions, each in one step; time as predicted for {info.machine.name}"
    losses = [one.loses for one in info.pruned if one.loses]
    return "\n".join([title, table(rows), *losses])


def _plan(info: Explanation) -> str:
    drawn = picture(info.plan, [region.info for region in info.regions])
    left_out = info.left_out[:3]
    more = len(info.left_out) - len(left_out)
    lines = [*left_out, f"and {more} more of the kind."] if more else [*left_out]
    if info.plan.origin:
        lines.insert(0, f"origin: {info.plan.origin}")
    return "\n".join([plan_title(info), *lines, drawn])


def table(rows: Sequence[Row]) -> str:
    """Rows of one length, in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = [index for index, width in enumerate(widths) if width]
    return "\n".join(
        "  " + "  ".join(f"{row[index]:<{widths[index]}}" for index in shown).rstrip()
        for row in rows
    )


def counted(kinds: Iterable[str]) -> str:
    """How many there are of each: "16 chain, 48 block"."""
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = counts.get(kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def flops_text(flops: int) -> str:
    """Operations with a unit: "36.4 TFLOP"."""
    for unit, scale in (("TFLOP", 1e12), ("GFLOP", 1e9)):
        if flops >= scale:
            return f"{flops / scale:.3g} {unit}"
    return f"{flops / 1e6:.3g} MFLOP"


def bytes_text(size: int) -> str:
    """Bytes with a unit: "530 MB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"


def seconds_text(seconds: float) -> str:
    """Time with a unit: "235 ms"."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _share(flops: int, info: Explanation) -> Row:
    return f"{flops / info.flops_per_call:.1%}", flops_text(flops)


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}..{high}"


def ranges(numbers: Sequence[int]) -> str:
    """`0, 12-16` of 0, 12, 13, 14, 15, 16."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _starred(names: Sequence[str]) -> str:
    """Names that differ in one number share a spelling, `down.0.*.chain`; many share their end."""
    found = _grouped(names, r"\.\d+(?=\.[a-z])", ".*")
    if len(found) > _SPELLINGS:
        found = _grouped(names, r"^[a-z]+\.(\d+\.)*", "*.")
    return ", ".join(star if len(of) > 1 else of[0] for star, of in found.items())


def _grouped(names: Sequence[str], pattern: str, by: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(re.sub(pattern, by, name), []).append(name)
    return found
