"""One HTML page that needs nothing from outside: no script, no font, no picture of anybody else's.

It is light or dark as its reader's system is. What draws on it takes colours from the variables of `_STYLE`, and never
tells anything by colour alone.
"""

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60666d; --line: #d9dde2; --page: #fff; --old: #9aa4af;
  --new: #1f6feb; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9ba3ac; --line: #343a41; --page: #14171a;
  --old: #79828c; --new: #58a6ff; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; } p { margin: .3rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child, .text { text-align: left; }
td.text { white-space: pre-line; } code { font-size: .85em; }
figure { margin: 0; } figcaption { font-weight: 600; } .soft { color: var(--soft); }
svg text { fill: var(--soft); font-size: 11px; } svg line { stroke: var(--line); }
"""


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """The whole page: `parts` are HTML, `style` is what they need beyond the page's own."""
    head = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{text(title)}</title><style>{_STYLE}{style}</style>",
        f"<h1>{text(title)}</h1>",
    ]
    return "\n".join([*head, *parts, "</html>"])


def text(told: str) -> str:
    """Words, as HTML has them."""
    return escape(told, quote=True)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: Sequence[int] = ()) -> str:
    """`texts` are the columns that hold words."""
    kinds = [' class="text"' if number in texts else "" for number in range(len(heads))]
    head = "".join(f"<th{kind}>{text(one)}</th>" for one, kind in zip(heads, kinds, strict=True))
    lines = "".join(
        f"<tr>{''.join(f'<td{kind}>{text(cell)}</td>' for cell, kind in zip(row, kinds, strict=True))}</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>'
