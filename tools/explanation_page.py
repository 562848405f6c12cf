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
    times_title,
)
from turbo4d.tools.page_style import document, section, table
from turbo4d.tools.plan_picture import PLAN_STYLE, plan_table


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
        section("Plan", f"<p>{html.escape(plan_title(info))}</p>{_origin(info)}{_left_out(info)}"),
        plan_table(info.lines),
        section(
            "Operations of a step",
            f"<p>Its {html.escape(times_title(info))}.</p>{_steps(info)}",
        ),
        section("Operations of a call, by kind of attention", _kinds(info)),
        section(
            f"Regions: {counted(region.kind for region in info.regions)}",
            table(("", "kind", "operations", "slot", "names"), region_rows(info)),
        ),
        section(
            f"Sites: {counted(site.kind for site in info.sites)}",
            table(
                ("", "kind", "queries x keys", "heads", "groups", "note", "names"), site_rows(info)
            ),
        ),
        section("Exact passes", _exact(info)),
    ]
    return document(title, parts, PLAN_STYLE)


def _bars(rows: Sequence[Sequence[str]], shares: Sequence[float]) -> str:
    body = "\n".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}"
        f'<td class="wide"><span class="bar" style="width:{100 * min(share, 1.0):.1f}%"></span>'
        "</td></tr>"
        for row, share in zip(rows, shares, strict=True)
    )
    return f"<table><tbody>{body}</tbody></table>"


def _kinds(info: Explanation) -> str:
    shares = [flops / info.flops_per_call for flops in flops_by_kind(info.analysis).values()]
    return _bars(kind_rows(info), shares)


def _steps(info: Explanation) -> str:
    rows = step_rows(info)
    return _bars(rows, [float(row[1].rstrip("%")) / 100 for row in rows])


def _origin(info: Explanation) -> str:
    return f"<p>Origin: {html.escape(info.plan.origin)}.</p>" if info.plan.origin else ""


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
