"""explain as one HTML page that opens anywhere: no script, no link, no font of its own."""

from __future__ import annotations

import html
from collections.abc import Sequence

from turbo4d.compiler.costs import flops_by_kind, folded_sites
from turbo4d.compiler.explain import Explanation
from turbo4d.compiler.explain_text import (
    bytes_text,
    counted,
    dead_text,
    flops_text,
    kind_rows,
    plan_title,
    region_rows,
    site_rows,
    step_rows,
)
from turbo4d.tools.plan_picture import MARKS, plan_table

_STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 1060px; padding: 0 1em;
       color: #222; background: #fff; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin: 2em 0 .4em; }
table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: 2px 14px 2px 0; font-weight: normal; vertical-align: top; }
thead th { color: #666; border-bottom: 1px solid #ccc; }
table.plan { border-collapse: separate; border-spacing: 2px; }
table.plan td { width: 24px; min-width: 24px; height: 18px; padding: 0; }
table.plan th { padding: 0 8px 0 0; white-space: nowrap; }
.legend span { margin-right: 1.4em; font-size: 13px; }
.legend i { display: inline-block; width: 22px; height: 13px; margin-right: 6px;
            border: 1px solid #c0c0c0; vertical-align: -2px; }
.bar { display: inline-block; height: 12px; min-width: 1px; }
.wide { width: 420px; }
details { font-size: 13px; } summary { cursor: pointer; }
"""


def page(info: Explanation, model: str) -> str:
    """The page.

    Args:
        info: the findings.
        model: what --model named.
    """
    title = f"plan {info.plan.name} of {model}, {info.plan.steps} steps"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(info.model)}: {info.params:,} parameters; "
        f"{html.escape(str(info.analysis.geometry))}. One call that computes everything: "
        f"{flops_text(info.flops_per_call)}.</p>",
        _section("Plan", f"<p>{html.escape(plan_title(info))}</p>{_left_out(info)}"),
        plan_table(info.lines),
        _section("Operations of a step", _steps(info)),
        _section("Operations of a call, by kind of attention", _kinds(info)),
        _section(
            f"Regions: {counted(region.kind for region in info.regions)}",
            _rows(("", "kind", "operations", "slot", "names"), region_rows(info)),
        ),
        _section(
            f"Sites: {counted(site.kind for site in info.sites)}",
            _rows(
                ("", "kind", "queries x keys", "heads", "groups", "note", "names"), site_rows(info)
            ),
        ),
        _section("Exact passes", _exact(info)),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{body}"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    shown = [index for index in range(len(head)) if any(row[index] for row in rows)]
    top = "".join(f"<th>{html.escape(head[index])}</th>" for index in shown)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(row[index])}</td>" for index in shown) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _bars(rows: Sequence[Sequence[str]], shares: Sequence[float]) -> str:
    body = "\n".join(
        f"<tr><td>{html.escape(row[0])}</td><td>{html.escape(row[1])}</td>"
        f'<td>{html.escape(row[2])}</td><td class="wide"><span class="bar" '
        f'style="width:{100 * min(share, 1.0):.1f}%;background:{MARKS["compute"][0]}"></span></td>'
        "</tr>"
        for row, share in zip(rows, shares, strict=True)
    )
    return f"<table><tbody>{body}</tbody></table>"


def _kinds(info: Explanation) -> str:
    shares = [flops / info.flops_per_call for flops in flops_by_kind(info.analysis).values()]
    return _bars(kind_rows(info), shares)


def _steps(info: Explanation) -> str:
    rows = step_rows(info)
    return _bars(rows, [float(row[1].rstrip("%")) / 100 for row in rows])


def _left_out(info: Explanation) -> str:
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in info.left_out)
    return f"<ul>{items}</ul>" if items else ""


def _exact(info: Explanation) -> str:
    if not info.plan.exact:
        return "<p>Plan none takes no exact passes: every step runs the captured graph.</p>"
    cost = info.cost
    dead = "".join(
        f"<li>{html.escape(name)} ({bytes_text(size)})</li>"
        for name, size in cost.dead_weights.items()
    )
    return (
        f"<p>{len(folded_sites(info.analysis))} attentions over one key are folded. Computed once "
        f"per run and stream, and held: {cost.prologue_values} values of "
        f"{bytes_text(cost.prologue_bytes)}.</p><p>{html.escape(dead_text(info))}</p>"
        + (f"<details><summary>all of them</summary><ul>{dead}</ul></details>" if dead else "")
    )
