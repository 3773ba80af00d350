"""A comparison as one HTML page that needs nothing from outside: no script, no font, no picture of anybody else's."""

from collections.abc import Iterable, Sequence
from html import escape

from rewards.backtest import show
from rewards.backtest.compare import Comparison, Mover, Shift
from rewards.backtest.numbers import NUM_BINS, Distribution

_WIDTH, _HEIGHT, _FOOT = 320, 120, 18
_STEP = _WIDTH / NUM_BINS

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60666d; --line: #d9dde2; --page: #fff; --old: #9aa4af;
  --new: #1f6feb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9ba3ac; --line: #343a41; --page: #14171a;
  --old: #79828c; --new: #58a6ff; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; } p { margin: .3rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child, .text { text-align: left; }
td.text { white-space: pre-line; } code { font-size: .85em; }
.charts { display: flex; margin: 1rem 0 2rem; flex-wrap: wrap; gap: 1.5rem; } figure { margin: 0; }
figcaption { font-weight: 600; } .key, .soft { color: var(--soft); }
.key i { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .8em; }
.old { fill: var(--old); background: var(--old); } .new { fill: var(--new); background: var(--new); }
svg text { fill: var(--soft); font-size: 11px; } svg line { stroke: var(--line); }
"""


def page(found: Comparison, against: str, notes: Sequence[str]) -> str:
    """The whole page. `against` says what the old values are, `notes` what was left out."""
    ranked = [f"<p>Order of {_t(s.name)}: {_t(show.order(s.ranks))}.</p>" for s in found.shifts if s.ranks is not None]
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{_t(found.spec_new)}, backtested</title><style>{_STYLE}</style>",
        f"<h1>{_t(found.spec_new)}, backtested</h1>",
        f"<p>{_t(show.heading(found, against))}</p>",
        *(f'<p class="soft">{_t(note)}</p>' for note in notes),
        "<h2>Distributions</h2>",
        '<p class="key">share of values in each 20th of [0, 1]: <i class="old"></i>before <i class="new"></i>now</p>',
        f'<div class="charts">{"".join(_chart(one) for one in found.shifts if one.old or one.new)}</div>',
        _table(
            ("", *show.SIDES), [(show.name_of(one), *line) for one in found.shifts for line in show.sides(one)], (0, 1)
        ),
        "<h2>What changes</h2>",
        _table(show.CHANGES, ((show.name_of(shift), *show.changes(shift)) for shift in found.shifts)),
        "<h2>Rank changes</h2>",
        *ranked,
        *_unscored(found.shifts),
        *_movers("sessions", found.sessions),
        *_movers("turns", found.turns),
        "</html>",
    ]
    return "\n".join(parts)


def _t(text: str) -> str:
    return escape(text, quote=True)


def _chart(shift: Shift) -> str:
    """Histograms side by side, each side's as shares of its own values."""
    shares = [_shares(shift.old), _shares(shift.new)]
    top = max(map(max, shares))
    bars = "".join(
        _bar(kind, number * _STEP + (1 + side * (_STEP / 2 - 1)), share / top * _HEIGHT, share)
        for side, (kind, values) in enumerate(zip(("old", "new"), shares, strict=True))
        for number, share in enumerate(values)
        if share
    )
    marks = "".join(
        f'<text x="{at * _WIDTH}" y="{_HEIGHT + 14}" text-anchor="{anchor}">{at:g}</text>'
        for at, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    means = show.means(shift)
    return (
        f"<figure><figcaption>{_t(show.name_of(shift))}</figcaption>"
        f'<div class="soft">mean {_t(means)}; highest bar {top:.0%}</div>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" width="{_WIDTH}" height="{_HEIGHT + _FOOT}" role="img" '
        f'aria-label="{_t(show.name_of(shift))}: before and now">{bars}'
        f'<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>{marks}</svg></figure>'
    )


def _shares(held: Distribution | None) -> list[float]:
    return [0.0] * NUM_BINS if held is None else [num / held.num for num in held.bins]


def _bar(kind: str, x: float, height: float, share: float) -> str:
    height = max(height, 1.0)
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{_HEIGHT - height:.1f}" width="{_STEP / 2 - 1:.1f}" '
        f'height="{height:.1f}"><title>{share:.1%}</title></rect>'
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: Sequence[int] = ()) -> str:
    """`texts` are the columns that hold words."""
    kinds = [' class="text"' if number in texts else "" for number in range(len(heads))]
    head = "".join(f"<th{kind}>{_t(one)}</th>" for one, kind in zip(heads, kinds, strict=True))
    lines = "".join(
        f"<tr>{''.join(f'<td{kind}>{_t(cell)}</td>' for cell, kind in zip(row, kinds, strict=True))}</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>'


def _unscored(shifts: Sequence[Shift]) -> list[str]:
    changed = [shift for shift in shifts if shift.unscored_old or shift.unscored_new]
    if not changed:
        return []
    rows = ((s.name, show.reasons(s.unscored_old), show.reasons(s.unscored_new)) for s in changed)
    return ["<h2>Turns without a score, and why</h2>", _table(("component", "before", "now"), rows, (0, 1, 2))]


def _movers(name: str, movers: Sequence[Mover]) -> list[str]:
    if not movers:
        return []
    rows = (
        (m.trace_id or m.session_id, show.number(m.old), show.number(m.new), f"{m.new - m.old:+.3f}", show.moved_by(m))
        for m in movers
    )
    heads = (name.removesuffix("s"), "before", "now", "change", "most of it by")
    return [f"<h2>The {len(movers)} {_t(name)} that moved most</h2>", _table(heads, rows, (0, 4))]
