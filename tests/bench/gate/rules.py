"""When each rule promotes, over many trials at once: the gate's, and what others do. A look after every session.

Each gives, for each trial, the number of sessions begun when it first promoted, or `NEVER`.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from worlds import MARGIN, Floats, Trials

from serving.rollout.evidence import bets

NEVER = np.iinfo(np.int64).max
ALPHA, BLOCK = 0.05, 1_000
LEAST_PER_ARM, TUNED_FOR = 50, 5_000
SILENCE = 0.5
Whens = NDArray[np.int64]
_BETS = np.array(bets.BETS)


def stakes(trials: Trials, pi: float, for_harm: bool) -> Floats:
    """trials x bets, at one share."""
    variance = trials.variance / pi + trials.variance / (1 - pi)
    low, high = (1 - trials.mean, trials.mean) if for_harm else (trials.mean, 1 - trials.mean)
    bound = np.maximum(low / pi, high / (1 - pi))
    return np.minimum(_BETS * MARGIN / variance, 0.5 / bound)


def factors(trials: Trials, treated: Any, pi: float, outcome: Any, for_harm: bool) -> Floats:
    """Logarithms of factors, trials x bets x sessions."""
    off = outcome - trials.mean
    phi = np.where(treated, off / pi, -off / (1 - pi))
    x = -phi if for_harm else phi + MARGIN
    held: Floats = np.log1p(stakes(trials, pi, for_harm)[:, :, None] * x[:, None, :])
    return held


def paths(trials: Trials, counts: NDArray[np.bool_] | None, for_harm: bool) -> Iterator[tuple[int, Floats]]:
    """Block by block: where it begins, and how the log-products go on from its beginning, trials x bets x block.

    With outcomes of 0 and 1 there are four factors at one share, and a path is their logarithms times how often each
    was there.
    """
    is_binary = bool(np.isin(trials.outcome[:4], (0.0, 1.0)).all())
    edges = {0, trials.outcome.shape[1], *(np.flatnonzero(np.diff(trials.pi)) + 1).tolist()}
    edges |= set(range(0, trials.outcome.shape[1], BLOCK))
    for begin, end in pairwise(sorted(edges)):
        pi, treated, outcome = float(trials.pi[begin]), trials.treated[:, begin:end], trials.outcome[:, begin:end]
        some = np.ones_like(treated) if counts is None else counts[:, begin:end]
        if is_binary:
            kinds = [(a, y) for a in (True, False) for y in (1.0, 0.0)]
            seen = np.stack([some & (treated == a) & (outcome == y) for a, y in kinds], axis=1)
            table = np.concatenate([factors(trials, a, pi, np.array([[y]]), for_harm) for a, y in kinds], axis=2)
            yield begin, table @ np.cumsum(seen, axis=2, dtype=float)
        else:
            steps = factors(trials, treated, pi, outcome, for_harm) * some[:, None, :]
            yield begin, np.cumsum(steps, axis=2, out=steps)


def mixture(
    trials: Trials, counts: NDArray[np.bool_] | None = None, for_harm: bool = False, alpha: float = ALPHA
) -> Whens:
    """The gate's e-process, in the order in which sessions began: when it first reaches 1/alpha."""
    num, line = len(trials.outcome), -math.log(alpha)
    when, sums = np.full(num, NEVER), np.zeros((num, len(_BETS), 1))
    for begin, path in paths(trials, counts, for_harm):
        path += sums
        first = crossing(path, line)
        crossed = (first < path.shape[2]) & (when == NEVER)
        when[crossed] = begin + first[crossed] + 1
        sums = path[..., -1:].copy()
        if (when < NEVER).all():
            break
    return when


def crossing(path: Floats, line: float) -> NDArray[np.intp]:
    """Along the last axis, the first place at which the mean of the products reaches the line; its length where none
    does."""
    first = np.full(len(path), path.shape[2])
    some = np.flatnonzero(path.max(axis=(1, 2)) >= line)  # a mean is at most the greatest
    if some.size:
        height = np.logaddexp.reduce(path[some], axis=1) - math.log(path.shape[1]) >= line
        first[some] = np.where(height.any(axis=1), height.argmax(axis=1), path.shape[2])
    return first


def peaks(trials: Trials, until: Whens) -> Floats:
    """The most that log E ever is before session `until`."""
    num = len(trials.outcome)
    sums, most = np.zeros((num, len(_BETS), 1)), np.zeros(num)
    for begin, path in paths(trials, None, False):
        path += sums
        height = np.logaddexp.reduce(path, axis=1) - math.log(path.shape[1])
        is_before = np.arange(begin, begin + path.shape[2]) < until[:, None]
        most = np.maximum(most, np.where(is_before, height, 0.0).max(axis=1))
        sums = path[..., -1:].copy()
    return most


def as_known(trials: Trials, settle: float) -> Whens:
    """The gate's e-process when outcomes become known later, for silence at first, and none counts as evidence before
    `settle` later sessions began. At one share."""
    num, n = trials.outcome.shape
    assert trials.known_at is not None and trials.first_at is not None
    began, when, pi = np.arange(n), np.full(num, NEVER), float(trials.pi[0])
    final = factors(trials, trials.treated, pi, trials.outcome, False)
    silent = factors(trials, trials.treated, pi, np.full_like(trials.outcome, SILENCE), False)
    for row in range(num):
        first = np.maximum(trials.first_at[row], began + settle)
        known = np.maximum(trials.known_at[row], began + settle)
        is_silent = known > first
        steps = np.concatenate([np.where(is_silent, silent[row], final[row]), final[row] - silent[row]], axis=1)
        times = np.concatenate([first, np.where(is_silent, known, np.inf)])
        order = np.argsort(times, kind="stable")
        order = order[np.isfinite(times[order])]
        at = crossing(np.cumsum(steps[:, order], axis=1)[None], -math.log(ALPHA))[0]
        if at < order.size:
            when[row] = int(times[order[at]]) + 1
    return when


def capped(user: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Which sessions are among the first `most` of their user."""
    found = np.zeros(user.shape, dtype=bool)
    for row, users in enumerate(user):
        order = np.argsort(users, kind="stable")
        ranked = users[order]
        begins = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        rank = np.arange(len(users)) - np.repeat(begins, np.diff(np.r_[begins, len(users)]))
        found[row, order] = rank < most
    return found


# -- what others do: differences of means, over all sessions so far


def _moments(trials: Trials) -> tuple[Floats, Floats, Floats]:
    """After each session: sessions by arm (treated, other), the difference of means, and its variance."""
    on = np.cumsum(trials.treated, axis=1, dtype=float)
    off = np.arange(1, trials.treated.shape[1] + 1) - on
    with np.errstate(divide="ignore", invalid="ignore"):
        rates, spreads = [], []
        for arm, num in ((trials.treated, on), (~trials.treated, off)):
            mean = np.cumsum(trials.outcome * arm, axis=1) / num
            rates.append(mean)
            spreads.append((np.cumsum(trials.outcome**2 * arm, axis=1) / num - mean**2) / num)
    return np.minimum(on, off), rates[0] - rates[1], spreads[0] + spreads[1]


def others(trials: Trials, horizon: int) -> dict[str, Whens]:
    """A one-sided z-test looked at after every session; an asymptotic confidence sequence, in the one-sided form that
    GrowthBook uses (Waudby-Smith et al., arXiv:2103.06476); and a z-test looked at once, after `horizon` sessions."""
    least, difference, variance = _moments(trials)
    n = np.arange(1, difference.shape[1] + 1)
    a = 2 * ALPHA
    rho2 = (-2 * math.log(a) + math.log(1 - 2 * math.log(a))) / TUNED_FOR
    wide = np.sqrt(2 * (n * rho2 + 1) / (n**2 * rho2) * np.log(1 + np.sqrt(n * rho2 + 1) / (2 * ALPHA)))
    with np.errstate(invalid="ignore"):
        error = np.sqrt(variance)
        may = (least >= LEAST_PER_ARM) & (variance > 0)
        z = may & (difference + MARGIN >= 1.6449 * error)
        sequence = may & (difference + MARGIN >= wide * error * np.sqrt(n))
    once = np.zeros_like(z)
    once[:, horizon - 1] = z[:, horizon - 1]
    return {name: _first(held) for name, held in (("z", z), ("acs", sequence), ("fixed", once))}


def _first(promotes: NDArray[np.bool_]) -> Whens:
    return np.where(promotes.any(axis=1), promotes.argmax(axis=1) + 1, NEVER)
