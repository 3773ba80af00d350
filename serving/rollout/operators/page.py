"""A trial's story as one page that needs nothing from outside (see `infra.page`).

Curves are told apart by the form of their lines and by names at their ends, so that the page reads without colour.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from infra import page, plots
from serving.rollout.operators import chart, screen
from serving.rollout.operators.chart import Curve, Plot
from serving.rollout.operators.story import Point, Story

_WIDTH, _HEIGHT, _FOOT, _LEFT, _RIGHT = 760, 240, 22, 44, 250
_FULL = _LEFT + _WIDTH + _RIGHT
_DASHES = ("", "7 4")  # of curves, in their order
_STYLE = """
svg { max-width: 100%; height: auto; } figure { margin: 1rem 0 2rem; } td.text:not(:last-child) { white-space: nowrap; }
.curve { fill: none; stroke: var(--ink); stroke-width: 2; } .dashed { stroke: var(--new); }
svg .bound { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 2 4; }
svg .mark { stroke: var(--soft); stroke-dasharray: 1 3; } svg text.name { fill: var(--ink); font-size: 12px; }
details { margin-top: 2rem; } summary { cursor: pointer; }
"""


def story(told: Story, now: float) -> str:
    """The whole page, as of `now`."""
    states = list(screen.rows(told, now))
    heads = ("state", "began", "lasted", "by", "why")
    parts = [
        f"<p>{page.text(screen.heading(told))}, as of {page.text(screen.stamp(now))}.</p>",
        f"<p><strong>{page.text(told.told)}</strong></p>",
        *(f'<p class="soft">{page.text(note)}</p>' for note in told.notes),
        "<h2>What happened</h2>",
        page.table(heads, states, range(len(heads))),
        "<h2>The evidence over time</h2>",
        *_figures(told),
    ]
    return page.page(f"The trial of version {told.version}", parts, _STYLE)


def _figures(told: Story) -> Iterator[str]:
    if not told.points:
        yield "<p>There is none: no session of this trial was scored while users met it.</p>"
        return
    yield (
        '<p class="soft">Natural logarithms of e-values. Evidence begins at 0, and reaches a line by chance with no '
        "more than the probability that the line stands for, however often one looks.</p>"
    )
    shares = _shares(told)
    for plot in chart.plots(told.points):
        yield _figure(plot, shares)
    yield "<details><summary>The numbers</summary>"
    yield page.table(_NUMBERS, map(_row, told.points), (3, 5))
    yield "</details>"


_NUMBERS = ("at", "sessions", "share", "", "reward", "weakest guardrail", "its evidence", "needed", "harm", "its line")


def _row(point: Point) -> tuple[str, ...]:
    numbers = (point.weakest_log_e, point.log_threshold, point.log_harm, point.harm_line)
    return (
        screen.stamp(point.at),
        str(point.num_units),
        f"{point.share:.0%}",
        "watch" if point.is_watch else "canary",
        _number(point.log_e),
        point.weakest,
        *map(_number, numbers),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _shares(told: Story) -> list[tuple[float, str]]:
    """When the share of sessions became another, and what it was then."""
    steps = [step for stage in told.stages for step in stage.steps]
    return [
        (after.at, f"{after.share:.0%}")
        for before, after in pairwise(steps)
        if after.share and after.share != before.share
    ]


def _figure(plot: Plot, shares: Sequence[tuple[float, str]]) -> str:
    begin, end = chart.times(plot)
    low, high = chart.heights(plot)

    def x(at: float) -> float:
        return _LEFT + (at - begin) / ((end - begin) or 1.0) * _WIDTH

    def y(value: float) -> float:
        return _HEIGHT - (value - low) / (high - low) * _HEIGHT

    named = [(y(one.values[-1][1]), f"{one.name} {one.values[-1][1]:.2f}") for one in plot.curves]
    named += [(y(value), f"{name} at {value:.2f}") for name, value in plot.lines]
    body = [
        _line(_LEFT, _LEFT + _WIDTH, y(0.0)),
        *(_line(_LEFT, _LEFT + _WIDTH, y(value), "bound") for _, value in plot.lines),
        *(
            f'<line class="mark" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="0" y2="{_HEIGHT}"/>'
            f'<text x="{x(at):.1f}" y="-4" text-anchor="middle">{page.text(share)} of sessions</text>'
            for at, share in shares
            if begin < at < end
        ),
        *(_curve(one, number, x, y) for number, one in enumerate(plot.curves)),
        *(
            f'<text class="name" x="{_LEFT + _WIDTH + 6}" y="{at + 4:.1f}">{page.text(name)}</text>'
            for at, name in plots.apart(named, _HEIGHT)
        ),
        *(
            f'<text x="{x(at):.1f}" y="{_HEIGHT + 16}" text-anchor="middle">{page.text(label.strip())}</text>'
            for at, label in chart.ticks(begin, end)
        ),
        *(
            f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
            for value in plots.levels(low, high)
        ),
    ]
    return (
        f"<figure><figcaption>{page.text(plot.title)}</figcaption>"
        f'<svg viewBox="0 -14 {_FULL} {_HEIGHT + _FOOT + 14}" width="{_FULL}" role="img" '
        f'aria-label="{page.text(f"{plot.title}: {chart.key(plot)}")}">{"".join(body)}</svg></figure>'
    )


def _line(begin: float, end: float, at: float, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<line{named} x1="{begin}" x2="{end}" y1="{at:.1f}" y2="{at:.1f}"/>'


def _curve(curve: Curve, number: int, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in curve.values)
    dash = f' stroke-dasharray="{_DASHES[number]}"' if _DASHES[number] else ""
    kind = "curve dashed" if number else "curve"
    return f'<polyline class="{kind}"{dash} points="{points}"><title>{page.text(curve.name)}</title></polyline>'
