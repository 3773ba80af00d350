"""The evidence over time, drawn with characters: readable in any terminal, in a pipe and without colour."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from serving.rollout.operators.story import Point

_HEIGHT = 15
_MIN_WIDTH = 40
_NUM_TICKS = 6
_ROOM = 0.05  # above and below the curves, of their height
_MARKS = (("braille", "⠒⠒"), (".", ".."))  # of curves, in their order, and as the key shows them


@dataclass(frozen=True)
class Curve:
    """A name and its values over time, [(Unix time, natural log)]."""

    name: str
    values: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """Curves that share an axis, and the lines that they are held against: (name, log)."""

    title: str
    curves: tuple[Curve, ...]
    lines: tuple[tuple[str, float], ...]


def plots(points: Sequence[Point]) -> list[Plot]:
    """What there is to draw: evidence for the candidate and evidence of harm, in the canary and in the watch."""
    found = []
    for is_watch in (False, True):
        mine = [point for point in points if point.is_watch is is_watch]
        if not mine:
            continue
        when, last = "the watch" if is_watch else "the canary", mine[-1]
        found += [
            Plot(
                f"evidence in {when} that it is not worse",
                _curves(
                    ("reward", [(one.at, one.log_e) for one in mine]),
                    (f"weakest guardrail ({last.weakest})", [(one.at, one.weakest_log_e) for one in mine]),
                ),
                _lines("needed", last.log_threshold),
            ),
            Plot(
                f"evidence in {when} of harm",
                _curves((f"nearest to its line ({last.harm})", [(one.at, one.log_harm) for one in mine])),
                _lines("takes it back" if is_watch else "ends the trial", last.harm_line),
            ),
        ]
    return [plot for plot in found if plot.curves]


def _curves(*curves: tuple[str, list[tuple[float, float | None]]]) -> tuple[Curve, ...]:
    known = (Curve(name, [(at, value) for at, value in values if value is not None]) for name, values in curves)
    return tuple(curve for curve in known if curve.values)


def _lines(name: str, at: float | None) -> tuple[tuple[str, float], ...]:
    return () if at is None else ((name, at),)


def ticks(begin: float, end: float, num: int = _NUM_TICKS) -> list[tuple[float, str]]:
    """Times at even distances with their labels: hours and minutes, and the day where it is another."""
    times = [begin + (end - begin) * number / (num - 1) for number in range(num)] if end > begin else [begin]
    told, day = [], ""
    for at in times:
        local = time.localtime(at)
        today = time.strftime("%b %d ", local)
        told.append((at, (today if today != day else "") + time.strftime("%H:%M", local)))
        day = today
    return told


def key(plot: Plot) -> str:
    """What each line is: by its form, and with the value that it has at the end."""
    curves = [
        f"{shown} {one.name} {one.values[-1][1]:.2f}" for one, (_, shown) in zip(plot.curves, _MARKS, strict=False)
    ]
    return "   ".join([*curves, *(f"── {name} at {value:.2f}" for name, value in plot.lines)])


def chart(plot: Plot, width: int) -> str:
    """The plot, `width` columns wide, without its title and key."""
    import plotext

    plotext.terminal.limit(False, False)  # the width is the caller's to know
    figure = plotext.figure
    figure.clear()
    figure.legend(False)
    figure.plot_size(max(_MIN_WIDTH, width), _HEIGHT)
    begin, end = times(plot)
    for _, value in plot.lines:
        figure.draw(figure.signal([begin, end], [value, value], marker="─").lines(True))
    for curve, (mark, _) in zip(plot.curves, _MARKS, strict=False):
        at, values = zip(*curve.values, strict=True)
        figure.draw(figure.signal(list(at), list(values), marker=mark).lines(True))
    low, high = heights(plot)
    figure.ruler(1, 0).lim(low, high)
    marks = ticks(begin, end)
    figure.ruler(0, 0).ticks([at for at, _ in marks], [label for _, label in marks])
    text: str = figure.build().string(colorless=True)
    return text.rstrip("\n")


def heights(plot: Plot) -> tuple[float, float]:
    """What the vertical axis has to hold: curves, lines, and 0, where evidence begins."""
    values = [0.0, *(value for curve in plot.curves for _, value in curve.values), *(value for _, value in plot.lines)]
    room = _ROOM * (max(values) - min(values)) or 1.0
    return min(values) - room, max(values) + room


def times(plot: Plot) -> tuple[float, float]:
    """From when to when it goes."""
    at = [at for curve in plot.curves for at, _ in curve.values]
    return min(at), max(at)
