"""A report as one page that needs nothing from outside (see `infra.page`).

What became of a version is told by the form of its mark, curves by their dashes and by names at their ends, used turns
from wasted ones by hatching: the page reads without colour.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from infra import page, plots
from infra.config import AlarmsConfig
from ingest.store.releases import End
from trainer.report import show
from trainer.report.core import Report, VersionTold

_WIDTH, _HEIGHT, _FOOT, _HEAD, _LEFT, _RIGHT = 700, 170, 36, 8, 52, 190
_FULL = _LEFT + _WIDTH + _RIGHT
_ROOM = 0.08  # above and below a curve, of its height
_MAX_LABELS = 24  # of versions below an axis
_DASHES = ("", "7 4")
_GOOD, _BAD = (End.FIRST, End.PROMOTED), (End.REJECTED, End.ROLLED_BACK, End.EXPIRED)
_STYLE = """
svg { max-width: 100%; height: auto; } figure { margin: 1rem 0 1.6rem; } figcaption .soft { font-weight: 400; }
.curve { fill: none; stroke: var(--ink); stroke-width: 1.5; } .second { stroke: var(--new); }
svg .bound { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 2 4; }
svg text.name { fill: var(--ink); font-size: 12px; }
.good { fill: var(--ink); stroke: var(--ink); } .open { fill: var(--page); stroke: var(--ink); stroke-width: 1.5; }
svg .cross { stroke: var(--bad); stroke-width: 2; } .used { fill: var(--new); } .hatch { stroke: var(--ink); }
.wasted { fill: url(#hatched); stroke: var(--ink); stroke-width: .5; } .key svg { vertical-align: middle; }
"""
_HATCHED = (
    '<svg width="0" height="0" aria-hidden="true"><defs><pattern id="hatched" width="5" height="5" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><line class="hatch" x1="0" y1="0" x2="0" y2="5"/>'
    "</pattern></defs></svg>"
)


@dataclass(frozen=True)
class Plot:
    """Metrics on one axis, each with the name it is shown by, and the bound an alarm has on them: (name, value)."""

    title: str
    about: str
    curves: tuple[tuple[str, str], ...]
    bound: tuple[str, float] | None = None


def all_plots(bounds: AlarmsConfig) -> tuple[Plot, ...]:
    """What there is to see, with the alarms' bounds as they are configured now."""

    def bound(name: str, value: float | None) -> tuple[str, float] | None:
        return None if value is None else (name, value)

    return (
        Plot("Reward", "mean of the turns that trained it", (("mean_reward", "reward"),)),
        Plot(
            "KL",
            "nats per token; mismatch is that of the learner before its first step",
            (("kl", "to the served policy"), ("mismatch_k1", "mismatch")),
            bound("max_kl", bounds.max_kl),
        ),
        Plot("Entropy", "nats per token, where it trained", (("entropy", "entropy"),)),
        Plot("Effective sample size", "share of the tokens", (("ess", "ess"),), bound("min_ess", bounds.min_ess)),
        Plot(
            "Staleness",
            "promotions that a turn's oldest weights lay behind",
            (("staleness", "mean"), ("staleness_max", "most")),
        ),
        Plot("Gradient norm", "mean over the update's steps", (("grad_norm", "gradient norm"),)),
    )


def report(told: Report, bounds: AlarmsConfig) -> str:
    """The whole page."""
    parts = [
        _HATCHED,
        f"<p>{page.text(show.heading(told))}.</p>",
        f'<p class="key soft">{_key()}</p>',
        *(_figure(plot, told.versions) for plot in all_plots(bounds) if _has(plot, told.versions)),
        _bars(told.versions),
        "<h2>Turns that never train, and why</h2>",
        "<p>Wasted ones could have trained; the others never could.</p>",
        page.table(show.REASONS, show.reasons(told), (0, 1)) if told.ended else "<p>None.</p>",
        "<h2>Versions</h2>",
        page.table(show.HEADS, map(show.cells, told.versions), (2, 3)),
    ]
    return page.page("What the trainer did", parts, _STYLE)


def _key() -> str:
    marks = ((End.PROMOTED, "promoted, or the first"), (End.REJECTED, "rejected, rolled back or expired"))
    shown = [*marks, (End.ON_TRIAL, "on trial, or waits for one")]
    return " &nbsp; ".join(
        f'<svg width="14" height="14" viewBox="-7 -7 14 14" aria-hidden="true">{_mark(end, 0.0, 0.0)}</svg> '
        f"{page.text(name)}"
        for end, name in shown
    )


def _has(plot: Plot, versions: Sequence[VersionTold]) -> bool:
    return any(name in one.metrics for one in versions for name, _ in plot.curves)


def _x(versions: Sequence[VersionTold]) -> Callable[[int], float]:
    """The middle of a version's place, by its number in the order."""
    step = _WIDTH / len(versions)
    return lambda place: _LEFT + (place + 0.5) * step


def _figure(plot: Plot, versions: Sequence[VersionTold]) -> str:
    curves = [
        (label, [(place, one.metrics[name]) for place, one in enumerate(versions) if name in one.metrics])
        for name, label in plot.curves
    ]
    curves = [(label, values) for label, values in curves if values]
    known = [value for _, values in curves for _, value in values] + ([plot.bound[1]] if plot.bound else [])
    room = _ROOM * (max(known) - min(known)) or abs(max(known)) * _ROOM or 1.0
    low, high = min(known) - room, max(known) + room
    x = _x(versions)

    def y(value: float) -> float:
        return _HEIGHT - (value - low) / (high - low) * _HEIGHT

    named = [(y(values[-1][1]), f"{label} {values[-1][1]:.3g}") for label, values in curves]
    body = [*_axis(low, high, y), *_labels(versions, x)]
    if plot.bound:
        named.append((y(plot.bound[1]), f"{plot.bound[0]} {plot.bound[1]:g}"))
        body.append(_level(y(plot.bound[1]), "bound"))
    for number, (label, values) in enumerate(curves):
        body.append(_curve(number, label, [(x(place), y(value)) for place, value in values]))
    for place, value in curves[0][1]:
        one = versions[place]
        about = f"version {one.version}, {one.end.value}: {value:.4g}"
        body.append(f"<g>{_mark(one.end, x(place), y(value))}<title>{page.text(about)}</title></g>")
    body += _names(named)
    return _framed(plot.title, plot.about, body)


def _curve(number: int, label: str, points: Sequence[tuple[float, float]]) -> str:
    dash = f' stroke-dasharray="{_DASHES[number]}"' if _DASHES[number] else ""
    kind = "curve second" if number else "curve"
    told = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{kind}"{dash} points="{told}"><title>{page.text(label)}</title></polyline>'


def _mark(end: End, x: float, y: float) -> str:
    """Filled where it was taken, crossed where it was not, open where that is not decided."""
    if end in _BAD:
        return (
            f'<line class="cross" x1="{x - 4:.1f}" y1="{y - 4:.1f}" x2="{x + 4:.1f}" y2="{y + 4:.1f}"/>'
            f'<line class="cross" x1="{x - 4:.1f}" y1="{y + 4:.1f}" x2="{x + 4:.1f}" y2="{y - 4:.1f}"/>'
        )
    return f'<circle class="{"good" if end in _GOOD else "open"}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'


def _bars(versions: Sequence[VersionTold]) -> str:
    """Turns used, and on top of them those wasted while the version was made."""
    most = max((one.used + one.num_wasted for one in versions), default=0)
    if not most:
        return "<p>No turn has ended yet.</p>"
    x, width = _x(versions), min(40.0, _WIDTH / len(versions) * 0.7)

    def y(value: float) -> float:
        return _HEIGHT - value / (most * (1.0 + _ROOM)) * _HEIGHT

    body = [*_axis(0.0, most * (1.0 + _ROOM), y), *_labels(versions, x)]
    for place, one in enumerate(versions):
        left = x(place) - width / 2
        for kind, begin, num in (("used", 0, one.used), ("wasted", one.used, one.num_wasted)):
            if num:
                body.append(
                    f'<rect class="{kind}" x="{left:.1f}" width="{width:.1f}" y="{y(begin + num):.1f}" '
                    f'height="{y(begin) - y(begin + num):.1f}"><title>{page.text(_about(one))}</title></rect>'
                )
    last = versions[-1]
    named = [(y(last.used / 2), f"used {last.used:,}")]
    named += [(y(last.used + last.num_wasted / 2), f"wasted {last.num_wasted:,}")]
    body += _names(named)
    return _framed("Turns", "used by each version and, hatched, wasted while it was made", body)


def _about(one: VersionTold) -> str:
    why = "; ".join(f"{reason} {num:,}" for reason, num in one.ended.items())
    return f"version {one.version}: used {one.used:,}, wasted {one.num_wasted:,}" + (f" ({why})" if why else "")


def _axis(low: float, high: float, y: Callable[[float], float]) -> Iterator[str]:
    for value in plots.levels(low, high):
        yield _level(y(value))
        yield f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'


def _level(at: float, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<line{named} x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{at:.1f}" y2="{at:.1f}"/>'


def _labels(versions: Sequence[VersionTold], x: Callable[[int], float]) -> Iterator[str]:
    every = -(-len(versions) // _MAX_LABELS)
    for place, one in islice(enumerate(versions), 0, None, every):
        yield f'<text x="{x(place):.1f}" y="{_HEIGHT + 16}" text-anchor="middle">{one.version}</text>'
    yield f'<text x="{_LEFT + _WIDTH / 2}" y="{_HEIGHT + 32}" text-anchor="middle">version</text>'


def _names(named: Sequence[tuple[float, str]]) -> Iterator[str]:
    for at, name in plots.apart(named, _HEIGHT):
        yield f'<text class="name" x="{_LEFT + _WIDTH + 6}" y="{at + 4:.1f}">{page.text(name)}</text>'


def _framed(title: str, about: str, body: Sequence[str]) -> str:
    size = f'viewBox="0 {-_HEAD} {_FULL} {_HEIGHT + _FOOT + _HEAD}" width="{_FULL}"'
    label = page.text(f"{title} by version: {about}")
    return (
        f'<figure><figcaption>{page.text(title)} <span class="soft">{page.text(about)}</span></figcaption>'
        f'<svg {size} role="img" aria-label="{label}">{"".join(body)}</svg></figure>'
    )
