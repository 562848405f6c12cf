"""The report of suite `gpu` as text: what torch has, the ceilings, the rows, the shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WIDE = 58
_MEANING = """\
seconds from noise to latent, or of one call of the network where a row says "one step"; MFU and
copies beside the measured ceilings; error relative to the uncached latent; weights are random
unless the model is nano: time and memory mean something then, the error little"""
Row = Mapping[str, Any]


def text_of(report: Mapping[str, Any]) -> str:
    """All of it.

    Args:
        report: as the script's file holds it.
    """
    machine = report["machine"]
    lines = [f"suite gpu on {machine['device']}, torch {machine['torch']}"]
    lines += _smoke(report["smoke"])
    rows: Sequence[Row] = report["rows"]
    ceilings = next((row for row in rows if row["system"] == "ceilings"), {})
    if ceilings.get("matmul_flops_per_s"):
        lines.append(
            f"measured ceilings: products {ceilings['matmul_flops_per_s'] / 1e12:.4g} TFLOP/s, "
            f"copies {ceilings['copy_bytes_per_s'] / 1e9:.4g} GB/s"
        )
    timed = [row for row in rows if row["settings"].get("kind") == "sample"]
    if timed:
        lines.append(_MEANING)
        lines.append(
            f"{'row':{_WIDE}} {'seconds':>9} {'speed-up':>8} {'MFU':>6} {'copies':>6} "
            f"{'peak':>9} {'slots':>9} {'error':>8}"
        )
    lines += [_line(row, ceilings) for row in timed]
    for row in rows:
        lines += _shares(row)
        lines += _kernels(row)
    return "\n".join(lines)


def efficiency(row: Row, ceilings: Row) -> dict[str, float | None]:
    """Products and bytes a second beside the measured ceilings; None where either is not known.

    Args:
        row: with `flops` and `bytes` of a run, as its graphs count them, nothing fused.
        ceilings: the row of the ceilings.
    """
    latency = row.get("latency_s")
    found: dict[str, float | None] = {}
    for name, of, ceiling in (
        ("mfu", "flops", "matmul_flops_per_s"),
        ("bandwidth_share", "bytes", "copy_bytes_per_s"),
    ):
        known = latency and row.get(of) and ceilings.get(ceiling)
        found[name] = row[of] / latency / ceilings[ceiling] if known and latency else None
    return found


def noted(rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows in the order of the suite, each with a note of what its figures say.

    Args:
        rows: as measured.
        names: of the suite's rows, in order; others stay behind them.
    """
    place = {name: at for at, name in enumerate(names)}
    ceilings = next((row for row in rows if row["system"] == "ceilings"), {})
    ordered = sorted(rows, key=lambda row: place.get(row["name"], len(place)))
    return [{**row, "note": _note(row, ceilings)} for row in ordered]


def _note(row: Row, ceilings: Row) -> str:
    if row.get("shares"):
        first, shares = next(iter(row["shares"].items()))
        return f"{first}: " + ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
    if row.get("matmul_flops_per_s"):
        products, copies = row["matmul_flops_per_s"], row["copy_bytes_per_s"]
        return f"products {products / 1e12:.4g} TFLOP/s, copies {copies / 1e9:.4g} GB/s, measured"
    share = efficiency(row, ceilings)
    told = {"of the products' ceiling": share["mfu"], "of the copies'": share["bandwidth_share"]}
    return ", ".join(f"{part:.0%} {of}" for of, part in told.items() if part is not None)


def _line(row: Row, ceilings: Row) -> str:
    name = row["name"]
    if row["error"]:
        return f"{name:{_WIDE}} {row['error']}"
    share = efficiency(row, ceilings)
    done = "" if row.get("done") else "  (not done)"
    error = "     NaN" if row.get("finite") is False else _number(row.get("relative_error"), "8.1e")
    return (
        f"{name:{_WIDE}} {_number(row['latency_s'], '9.4g')} "
        f"{_number(row['speedup'], '7.2f', 'x')} "
        f"{_number(share['mfu'], '6.1%')} {_number(share['bandwidth_share'], '6.1%')} "
        f"{_bytes(row.get('peak_bytes'))} {_bytes(row.get('cache_peak_bytes'))} "
        f"{error}{done}"
    )


def _number(value: float | None, form: str, unit: str = "") -> str:
    width = int(form.partition(".")[0]) + len(unit)
    return f"{'-':>{width}}" if value is None else f"{value:{form}}{unit}"


def _bytes(value: int | None) -> str:
    return f"{'-':>9}" if value is None else f"{value / 2**20:5.0f} MiB"


def _smoke(probes: Sequence[Row]) -> list[str]:
    tried = [probe for probe in probes if probe["seconds"] is not None]
    bad = [f"  {probe['name']}: {probe['reason']}" for probe in probes if not probe["ok"]]
    good = sum(probe["ok"] for probe in tried)
    return [f"{good} of {len(tried)} probes of torch ok", *bad]


def _shares(row: Row) -> list[str]:
    found = [f"{row['name']}, share of the time by kind of attention, feed-forwards included:"]
    for variant, shares in (row.get("shares") or {}).items():
        told = ", ".join(f"{kind} {share:.1%}" for kind, share in shares.items())
        found.append(f"  {variant}: {told}")
    return found if len(found) > 1 else []


def _kernels(row: Row) -> list[str]:
    """What was found of the fused attention, a line for each site."""
    found = [f"{row['name']}, attention from norm to sum, torch's calls beside the kernels:"]
    for site in row.get("kernels") or ():
        name = f"{site['kind']} of {site['tokens']} tokens, {site['channels']} channels"
        if site["best_ms"] is None:
            found.append(f"  {name}: no way to cut it ran; {site['refused'][0]}")
            continue
        found.append(
            f"  {name}: {site['torch_ms']:.3g} ms, by rule {site['rule_ms']:.3g} ms "
            f"({site['torch_ms'] / site['rule_ms']:.2f}x), at best {site['best_ms']:.3g} ms "
            f"({site['torch_ms'] / site['best_ms']:.2f}x) with {_cut(site['best'])}"
        )
    return found if len(found) > 1 else []


def _cut(best: Mapping[str, Any]) -> str:
    kernels = "one kernel" if best["whole"] else f"two kernels, {best['columns']} columns"
    return (
        f"{best['rows']} rows, {best['step']} channels at a time, {best['warps']} warps, "
        f"{best['stages']} stages, {kernels}"
    )
