"""How sure a mean over seeds is."""

from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

_Z_975 = NormalDist().inv_cdf(0.975)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean."""
    half = t_975(len(values) - 1) * stdev(values) / len(values) ** 0.5
    return fmean(values) - half, fmean(values) + half


def t_975(freedom: int) -> float:
    """Student's t, by its expansion around the normal's (Abramowitz and Stegun 26.7.5); 0.007 too little for 4."""
    z = _Z_975
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
