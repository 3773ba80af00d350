"""A comparison as one HTML page."""

from collections.abc import Sequence

from infra import page
from rewards.backtest import show
from rewards.backtest.compare import Comparison, Mover, Shift
from rewards.backtest.numbers import NUM_BINS, Distribution

_WIDTH, _HEIGHT, _FOOT = 320, 120, 18
_STEP = _WIDTH / NUM_BINS

_STYLE = """
.charts { display: flex; margin: 1rem 0 2rem; flex-wrap: wrap; gap: 1.5rem; } .key { color: var(--soft); }
.key i { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .8em; }
.old { fill: var(--old); background: var(--old); } .new { fill: var(--new); background: var(--new); }
"""


def comparison(found: Comparison, against: str, notes: Sequence[str]) -> str:
    """The whole page. `against` says what the old values are, `notes` what was left out."""
    ranked = [
        f"<p>Order of {page.text(s.name)}: {page.text(show.order(s.ranks))}.</p>"
        for s in found.shifts
        if s.ranks is not None
    ]
    parts = [
        f"<p>{page.text(show.heading(found, against))}</p>",
        *(f'<p class="soft">{page.text(note)}</p>' for note in notes),
        "<h2>Distributions</h2>",
        '<p class="key">share of values in each 20th of [0, 1]: <i class="old"></i>before <i class="new"></i>now</p>',
        f'<div class="charts">{"".join(_chart(one) for one in found.shifts if one.old or one.new)}</div>',
        page.table(
            ("", *show.SIDES), [(show.name_of(one), *line) for one in found.shifts for line in show.sides(one)], (0, 1)
        ),
        "<h2>What changes</h2>",
        page.table(show.CHANGES, ((show.name_of(shift), *show.changes(shift)) for shift in found.shifts)),
        "<h2>Rank changes</h2>",
        *ranked,
        *_unscored(found.shifts),
        *_movers("sessions", found.sessions),
        *_movers("turns", found.turns),
    ]
    return page.page(f"{found.spec_new}, backtested", parts, _STYLE)


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
        f"<figure><figcaption>{page.text(show.name_of(shift))}</figcaption>"
        f'<div class="soft">mean {page.text(means)}; highest bar {top:.0%}</div>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" width="{_WIDTH}" height="{_HEIGHT + _FOOT}" role="img" '
        f'aria-label="{page.text(show.name_of(shift))}: before and now">{bars}'
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


def _unscored(shifts: Sequence[Shift]) -> list[str]:
    changed = [shift for shift in shifts if shift.unscored_old or shift.unscored_new]
    if not changed:
        return []
    rows = ((s.name, show.reasons(s.unscored_old), show.reasons(s.unscored_new)) for s in changed)
    return ["<h2>Turns without a score, and why</h2>", page.table(("component", "before", "now"), rows, (0, 1, 2))]


def _movers(name: str, movers: Sequence[Mover]) -> list[str]:
    if not movers:
        return []
    rows = (
        (m.trace_id or m.session_id, show.number(m.old), show.number(m.new), f"{m.new - m.old:+.3f}", show.moved_by(m))
        for m in movers
    )
    heads = (name.removesuffix("s"), "before", "now", "change", "most of it by")
    return [f"<h2>The {len(movers)} {page.text(name)} that moved most</h2>", page.table(heads, rows, (0, 4))]
