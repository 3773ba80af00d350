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

- each part normalised on its own, then the sum over the batch: GDPO (arXiv 2601.05242)
- keyed persistent baseline, used before it is updated: SPO (arXiv 2509.13232, section 3.2); per role of an agent: RAE
  in SPIRAL (arXiv 2506.24119)
- whitening over the global batch, not the group: REINFORCE++ (arXiv 2501.03262)
"""

from collections.abc import Iterable, Sequence
from math import sqrt
from statistics import fmean

from infra.config import BaselineConfig
from trainer.advantages.baselines import Baselines, Column

EPS = 1e-6
ROUNDING = 1e-12
"""A deviation below it is what rounding makes of equal rewards; whitened twice it would become an advantage."""


def advantages(
    baselines: Baselines,
    columns: Iterable[Column],
    num_turns: int,
    own: BaselineConfig,
    counts: Sequence[float] | None = None,
) -> list[float]:
    """The advantage of each of a batch's `num_turns` turns, which count as much as `counts` says, or 1 each."""
    sums = [0.0] * num_turns
    for column in columns:
        weights = column.counts(counts)
        expected = baselines.before(column, own, counts)
        surprises = [reward - expected[key] for key, reward in zip(column.keys, column.rewards, strict=True)]
        for turn, weight, x in zip(column.turns, column.weights, whiten(surprises, weights), strict=True):
            sums[turn] += weight * x
    return whiten(sums, counts)


def whiten(values: Sequence[float], counts: Sequence[float] | None = None) -> list[float]:
    """Mean 0 and standard deviation 1 over `values`; all zeros where every one is the same, or there is only one."""
    if not values:
        return []
    mean = fmean(values, counts)
    std = sqrt(fmean([(value - mean) ** 2 for value in values], counts))
    if std < ROUNDING:
        return [0.0] * len(values)
    return [(value - mean) / (std + EPS) for value in values]
