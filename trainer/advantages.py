"""Advantages when production gives one response per prompt.

With a group of one, GRPO's group baseline is the reward itself (advantage 0) or absent (advantage = raw reward).
Neither learns. Here each part c of a reward is measured against a persistent baseline of its key and whitened on its
own, over the turns i that have it; then the weighted sum is whitened over the whole batch:

    x_ci = whiten(r_ci - b[key_ci]),   A_i = whiten(sum_c w_ci x_ci),   whiten(x) = (x - mean(x)) / (std(x) + eps)

A part that a turn lacks adds 0 to its sum: it says neither good nor bad, where a reward of 0 would say bad. Whitened
together instead, a part would count by its spread: one that moves by 0.01 would drown beside one that moves by 1.

- each part normalised on its own, then the sum over the batch: GDPO (arXiv 2601.05242)
- keyed persistent baseline, used before it is updated: SPO (arXiv 2509.13232, section 3.2)
- exponential mean with decay 0.95 per key: RAE in SPIRAL (arXiv 2506.24119)
- whitening over the global batch, not the group: REINFORCE++ (arXiv 2501.03262)
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev

EPS = 1e-6
PRIOR_TURNS = 8
"""A new key's mean is shrunk to the batch's as if by this many turns: SPO's N_init = 1 / (1 - rho_min) = 8."""
ROUNDING = 1e-12
"""A deviation below it is what rounding makes of equal rewards; whitened twice it would become an advantage."""


@dataclass(frozen=True)
class Column:
    """One part of the reward over a batch: entry j is the part of the batch's turn number `turns[j]`.

    `keys[j]` is its baseline's key, which no other column has, `weights[j]` >= 0 and `rewards[j]` its value.
    """

    part: str
    turns: tuple[int, ...]
    keys: tuple[str, ...]
    weights: tuple[float, ...]
    rewards: tuple[float, ...]


@dataclass(frozen=True)
class Baselines:
    """The reward to expect, per key. Immutable: `after` gives the next one."""

    values: Mapping[str, float] = field(default_factory=dict)

    def before(self, keys: Sequence[str], rewards: Sequence[float]) -> dict[str, float]:
        """The baseline of every key in a batch's column, from what was known before it.

        A key seen for the first time begins at its own mean in this column, shrunk to the mean of the whole column.
        Without the shrinkage a key with one turn would be its own baseline and never train.
        """
        overall = fmean(rewards)
        groups = _by_key(keys, rewards)
        return {key: self.values.get(key, _shrunk(group, overall)) for key, group in groups.items()}

    def after(self, columns: Iterable[Column], decay: float) -> "Baselines":
        """The baselines once a batch has been used.

        A key's n turns move it as n updates `b <- decay b + (1 - decay) r` would by weight, but to their mean,
        so that the order of turns inside a batch does not matter.
        """
        moved = dict(self.values)
        for column in columns:
            used = self.before(column.keys, column.rewards)
            for key, group in _by_key(column.keys, column.rewards).items():
                kept = decay ** len(group)
                moved[key] = kept * used[key] + (1.0 - kept) * fmean(group)
        return Baselines(moved)


def advantages(baselines: Baselines, columns: Iterable[Column], num_turns: int) -> list[float]:
    """The advantage of each of a batch's `num_turns` turns."""
    sums = [0.0] * num_turns
    for column in columns:
        expected = baselines.before(column.keys, column.rewards)
        surprises = [reward - expected[key] for key, reward in zip(column.keys, column.rewards, strict=True)]
        for turn, weight, x in zip(column.turns, column.weights, whiten(surprises), strict=True):
            sums[turn] += weight * x
    return whiten(sums)


def whiten(values: Sequence[float]) -> list[float]:
    """Mean 0 and standard deviation 1 over `values`; all zeros where every one is the same, or there is only one."""
    if not values:
        return []
    mean, std = fmean(values), pstdev(values)
    if std < ROUNDING:
        return [0.0] * len(values)
    return [(value - mean) / (std + EPS) for value in values]


def _shrunk(group: Sequence[float], overall: float) -> float:
    return (sum(group) + PRIOR_TURNS * overall) / (len(group) + PRIOR_TURNS)


def _by_key(keys: Sequence[str], rewards: Sequence[float]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for key, reward in zip(keys, rewards, strict=True):
        groups[key].append(reward)
    return groups
