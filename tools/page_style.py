"""What turbo4d's HTML pages share: one file, no script, no link out, light, dark and printed."""

from __future__ import annotations

import html
from collections.abc import Sequence

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2126; --faint: #5f6670;
        --line: #cfd4da; --card: #f5f7f9; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e5e8ec; --faint: #a0a7b1; --line: #3b414a; --card: #1f2329; } }
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 1060px; padding: 0 1em;
       color: var(--ink); background: var(--paper); overflow-wrap: break-word; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin: 2em 0 .4em; }
table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: 2px 14px 2px 0; font-weight: normal; vertical-align: top; }
thead th { color: var(--faint); border-bottom: 1px solid var(--line); }
.scroll { overflow-x: auto; }
.bar { display: inline-block; height: 12px; min-width: 1px; background: var(--compute); }
.wide { width: 420px; }
@media (max-width: 600px) { .wide { width: 120px; } }
details { font-size: 13px; } summary { cursor: pointer; }
* { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
"""


def document(title: str, parts: Sequence[str], style: str) -> str:
    """The whole page.

    Args:
        title: plain text.
        parts: of the body, HTML.
        style: what the page adds to the shared rules.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def section(title: str, body: str, name: str = "") -> str:
    """A heading and what stands under it.

    Args:
        title: plain text.
        body: HTML.
        name: what a link within the page calls it.
    """
    anchor = f' id="{html.escape(name)}"' if name else ""
    return f"<h2{anchor}>{html.escape(title)}</h2>\n{body}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts, without the columns that are empty in every row."""
    shown = [index for index in range(len(head)) if any(row[index] for row in rows)]
    top = "".join(f"<th>{html.escape(head[index])}</th>" for index in shown)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(row[index])}</td>" for index in shown) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
