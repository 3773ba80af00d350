"""What plots on a page share: round values for an axis, and names that do not lie on one another. Pure."""

import math
from collections.abc import Sequence

LABEL = 14
"""Between two names at a plot's side, at least, in its own units."""


def apart(named: Sequence[tuple[float, str]], height: float) -> list[tuple[float, str]]:
    """Names at their heights, moved down where they would lie on one another, and up again where they left the plot."""
    placed: list[tuple[float, str]] = []
    for at, name in sorted(named):
        placed.append((max(at, placed[-1][0] + LABEL) if placed else at, name))
    over = max(0.0, placed[-1][0] - height) if placed else 0.0
    return [(at - over, name) for at, name in placed]


def levels(low: float, high: float) -> list[float]:
    """Three to six round values between two, for an axis."""
    step = 10.0 ** math.floor(math.log10((high - low) / 3.0))
    step *= next((times for times in (5.0, 2.0) if step * times * 3.0 <= high - low), 1.0)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
