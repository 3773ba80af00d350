"""Advantages when production gives one response per prompt.

With a group of one, GRPO's group baseline is the reward itself (advantage 0) or absent (advantage = raw reward).
Neither learns. Here each part c of a reward is measured against a persistent baseline of its key (`baselines`) and
whitened on its own, over the turns i that have it; then the weighted sum is whitened over the whole batch:

    x_ci = whiten(r_ci - b[key_ci]),   A_i = whiten(sum_c w_ci x_ci),   whiten(x) = (x - mean(x)) / (std(x) + eps)

A part that a turn lacks adds 0 to its sum: it says neither good nor bad, where a reward of 0 would say bad. Whitened
together instead, a part would count by its spread: one that moves by 0.01 would drown beside one that moves by 1.

A turn counts in every mean and deviation as much as its entry in `counts` says, in (0, 1]: less than 1 where its prompt
was asked before, its user asked too much (`repeats`, `caps`) or its trajectory has others (`batch`). Without them, a
user with half of the batch would say what is normal in it.

What one trajectory alone has, a part or the batch, has no deviation to be whitened by. It is then its surprise over the
most that a reward in [0, 1] with the mean b can deviate by (Bhatia and Davis 2000), so that it is no larger than it was
rare, and what is left in doubt makes it smaller:

    x_ci = (r_ci - b) / max(sqrt(b (1 - b)), LEAST_DEVIATION),   A_i = sum_c w_ci x_ci / sum_c w_ci

(A_i so where it is the batch), and 0 only where nobody had the part before, and nothing is expected.

- each part normalised on its own, then the sum over the batch: GDPO (arXiv 2601.05242)
- keyed persistent baseline, used before it is updated: SPO (arXiv 2509.13232, section 3.2); per role of an agent: RAE
  in SPIRAL (arXiv 2506.24119)
- whitening over the global batch, not the group: REINFORCE++ (arXiv 2501.03262)
"""

from collections.abc import Iterable, Sequence
from itertools import compress
from math import sqrt
from statistics import fmean

from infra.config import BaselineConfig
from trainer.advantages.baselines import Baselines, Column

EPS = 1e-6
ROUNDING = 1e-12
"""A deviation below it is what rounding makes of equal rewards; whitened twice it would become an advantage."""
LEAST_DEVIATION = 0.25
"""That of rewards of which a fifteenth is unlike the rest: what has always been alike is no reason for a huge step."""


def advantages(
    baselines: Baselines,
    columns: Iterable[Column],
    num_turns: int,
    own: BaselineConfig,
    counts: Sequence[float] | None = None,
    trajectories: Sequence[int] | None = None,
) -> list[float]:
    """The advantage of each of a batch's `num_turns` turns, which count as much as `counts` says, or 1 each.

    `trajectories` tells turns of one trajectory from those of another; without it each has its own.
    """
    sums, masses = [0.0] * num_turns, [0.0] * num_turns
    of = range(num_turns) if trajectories is None else trajectories
    for column in columns:
        weights = column.counts(counts)
        expected = baselines.before(column, own, counts)
        surprises = [reward - expected[key] for key, reward in zip(column.keys, column.rewards, strict=True)]
        if _is_one([of[turn] for turn in column.turns], weights):
            found = [x / _deviation(expected[key]) for key, x in zip(column.keys, surprises, strict=True)]
        else:
            found = whiten(surprises, weights)
        for turn, weight, x in zip(column.turns, column.weights, found, strict=True):
            sums[turn] += weight * x
            masses[turn] += weight
    if _is_one(of, counts):
        return [value / mass if mass else 0.0 for value, mass in zip(sums, masses, strict=True)]
    return whiten(sums, counts)


def _is_one(trajectories: Sequence[int], counts: Sequence[float] | None) -> bool:
    """Whether all that counts is of one trajectory."""
    return len(set(trajectories if counts is None else compress(trajectories, counts))) == 1


def _deviation(mean: float) -> float:
    """The most that rewards in [0, 1] with this mean can have, and no less than `LEAST_DEVIATION`."""
    return max(sqrt(max(0.0, mean * (1.0 - mean))), LEAST_DEVIATION)


def whiten(values: Sequence[float], counts: Sequence[float] | None = None) -> list[float]:
    """Mean 0 and standard deviation 1 over `values`; all zeros where every one is the same, or there is only one."""
    if not values:
        return []
    mean = fmean(values, counts)
    std = sqrt(fmean([(value - mean) ** 2 for value in values], counts))
    if std < ROUNDING:
        return [0.0] * len(values)
    return [(value - mean) / (std + EPS) for value in values]
