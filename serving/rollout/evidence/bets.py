"""One unit's factor in an e-process: the score, the stakes, and the bounds on what one unit can do. Pure.

Unit i is one session, with coin A_i ~ Bernoulli(pi_i) logged when it was assigned, and outcome Y_i in [0, 1]. With the
mean c and the variance s^2 of a baseline that was frozen before the first unit, and a margin delta:

    phi_i = A_i (Y_i - c) / pi_i - (1 - A_i) (Y_i - c) / (1 - pi_i)          E[phi_i | past] = effect of the treatment
    E_n   = (1/K) sum_k prod_i (1 + lambda_ki (phi_i + delta))               evidence against "worse by delta or more"
    D_n   = (1/K) sum_k prod_i (1 - lambda_ki phi_i)                         evidence that it is worse at all
    lambda_ki = min(m_k delta / v_i, 1 / (2 B_i)),  v_i = s^2 / pi_i + s^2 / (1 - pi_i)
    B_i   = max(c / pi_i, (1 - c) / (1 - pi_i)) for E,  max((1 - c) / pi_i, c / (1 - pi_i)) for D

Every factor is at least 1/2, so its logarithm exists, and given the past its mean is at most 1 under its null. The bets
are fixed before the first unit: a plug-in bet would make the product depend on the order in which rewards arrive.

Logarithms of factors are integers: the floor, in units of 2^-44. Sums of integers are exact, so nothing drifts, however
many units come, go and are replaced; a factor that is rounded down keeps the promise that it is at most 1 in the mean.

Betting: Waudby-Smith and Ramdas, JRSS-B 2024, arXiv:2010.09686, section 4; in its inverse-propensity form,
Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, arXiv:2210.10768.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

SCALE = 1 << 44
BETS = (1.0, 2.0, 4.0, 8.0)
SPLIT_STAKES = (-0.5, -0.2, -0.1, 0.1, 0.2, 0.5)
PAIR_STAKES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)

_MIN_VARIANCE = 1e-4
_CACHED = 1 << 14  # outcomes that come again and again, above all 0 and 1

Logs = tuple[int, ...]
"""The logarithm of a unit's factor for each of the K bets, in units of 2^-44, rounded down."""


@dataclass(frozen=True)
class Baseline:
    """The champion's outcome before the trial: mean and variance, frozen."""

    mean: float
    variance: float

    @classmethod
    def of(cls, outcomes: Iterable[float]) -> "Baseline":
        """From at least one outcome in [0, 1]."""
        values = tuple(outcomes)
        mean = math.fsum(values) / len(values)
        return cls(mean, max(_MIN_VARIANCE, math.fsum((y - mean) ** 2 for y in values) / len(values)))


@dataclass(frozen=True)
class Design:
    """What is settled of an outcome before its first unit: the baseline, and the margin delta in (0, 1)."""

    baseline: Baseline
    margin: float


def score(treated: bool, pi: float, outcome: float, mean: float) -> float:
    """phi: an unbiased estimate of the effect from one unit (Horvitz and Thompson, JASA 1952), pi in (0, 1)."""
    return (outcome - mean) / pi if treated else -(outcome - mean) / (1.0 - pi)


def fixed(factor_less_1: float) -> int:
    """log(1 + x) in units of 2^-44, rounded down, for x above -1."""
    return math.floor(math.log1p(factor_less_1) * SCALE)


@lru_cache(_CACHED)
def evidence(design: Design, treated: bool, pi: float, outcome: float) -> Logs:
    """A unit's factors in E: a bounded bet, a supermartingale's step under "worse by the margin or more" (Waudby-Smith
    and Ramdas, arXiv:2010.09686, proposition 2)."""
    x = score(treated, pi, outcome, design.baseline.mean) + design.margin
    return tuple(fixed(stake * x) for stake in _stakes(design, pi, for_harm=False))


@lru_cache(_CACHED)
def harm(design: Design, treated: bool, pi: float, outcome: float) -> Logs:
    """A unit's factors in D, under "not worse". The margin only scales the bets."""
    x = score(treated, pi, outcome, design.baseline.mean)
    return tuple(fixed(-stake * x) for stake in _stakes(design, pi, for_harm=True))


@lru_cache(_CACHED)
def mismatch(treated: bool, pi: float) -> Logs:
    """A unit's factors against "the coin was pi": bets both ways on A_i - pi_i, a martingale's step."""
    return tuple(fixed(stake * (treated - pi)) for stake in SPLIT_STAKES)


@lru_cache(_CACHED)
def _stakes(design: Design, pi: float, for_harm: bool) -> tuple[float, ...]:
    base = design.baseline
    variance = base.variance / pi + base.variance / (1.0 - pi)
    low, high = (1.0 - base.mean, base.mean) if for_harm else (base.mean, 1.0 - base.mean)
    bound = max(low / pi, high / (1.0 - pi))
    return tuple(min(bet * design.margin / variance, 0.5 / bound) for bet in BETS)


def most_evidence(design: Design, pi: float) -> tuple[float, float]:
    """The most by which one unit can raise, and lower, log E; neither is negative. A mixture of products moves by no
    more than the product that moves most."""
    moves = [one for a in (True, False) for y in (0.0, 1.0) for one in evidence(design, a, pi, y)]
    return max(moves) / SCALE, -min(moves) / SCALE


def most_harm(design: Design, pi: float) -> tuple[float, float]:
    """The most by which one unit can raise, and lower, log D."""
    moves = [one for a in (True, False) for y in (0.0, 1.0) for one in harm(design, a, pi, y)]
    return max(moves) / SCALE, -min(moves) / SCALE


def most_mismatch(pi: float) -> float:
    """The most by which one unit can raise the evidence against the coin."""
    return max(*mismatch(True, pi), *mismatch(False, pi)) / SCALE
