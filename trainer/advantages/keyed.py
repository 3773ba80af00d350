"""Advantages when production gives one response per prompt.

With a group of one, GRPO's group baseline is the reward itself (advantage 0) or absent (advantage = raw reward).
Neither learns. Here each part c of a reward is measured against a persistent baseline of its key and whitened on its
own, over the turns i that have it; then the weighted sum is whitened over the whole batch:

    x_ci = whiten(r_ci - b[key_ci]),   A_i = whiten(sum_c w_ci x_ci),   whiten(x) = (x - mean(x)) / (std(x) + eps)

A part that a turn lacks adds 0 to its sum: it says neither good nor bad, where a reward of 0 would say bad. Whitened
together instead, a part would count by its spread: one that moves by 0.01 would drown beside one that moves by 1.

A turn counts in every mean and deviation as much as its entry in `counts` says, in (0, 1]: less than 1 where its prompt
was asked before or its user asked too much (`repeats`, `caps`). Without them, a user with half of the batch would say
what is normal in it.

- each part normalised on its own, then the sum over the batch: GDPO (arXiv 2601.05242)
- keyed persistent baseline, used before it is updated: SPO (arXiv 2509.13232, section 3.2)
- exponential mean with decay 0.95 per key: RAE in SPIRAL (arXiv 2506.24119)
- whitening over the global batch, not the group: REINFORCE++ (arXiv 2501.03262)
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean

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

    def counts(self, of_turns: Sequence[float] | None) -> list[float]:
        """How much each entry counts, of how much each of the batch's turns does."""
        return [1.0 if of_turns is None else of_turns[turn] for turn in self.turns]


@dataclass(frozen=True)
class Baselines:
    """The reward to expect, per key. Immutable: `after` gives the next one."""

    values: Mapping[str, float] = field(default_factory=dict)

    def before(
        self, keys: Sequence[str], rewards: Sequence[float], counts: Sequence[float] | None = None
    ) -> dict[str, float]:
        """The baseline of every key in a batch's column, from what was known before it.

        A key seen for the first time begins at its own mean in this column, shrunk to the mean of the whole column.
        Without the shrinkage a key with one turn would be its own baseline and never train.
        """
        weights = _ones(rewards) if counts is None else counts
        overall = fmean(rewards, weights)
        groups = _by_key(keys, rewards, weights)
        return {key: self.values.get(key, group.shrunk_to(overall)) for key, group in groups.items()}

    def after(self, columns: Iterable[Column], decay: float, counts: Sequence[float] | None = None) -> "Baselines":
        """The baselines once a batch has been used.

        A key's n turns move it as n updates `b <- decay b + (1 - decay) r` would by weight, but to their mean,
        so that the order of turns inside a batch does not matter. `counts` holds how much each of the batch's turns
        counts; n is their sum.
        """
        moved = dict(self.values)
        for column in columns:
            weights = column.counts(counts)
            used = self.before(column.keys, column.rewards, weights)
            for key, group in _by_key(column.keys, column.rewards, weights).items():
                kept = decay**group.count
                moved[key] = kept * used[key] + (1.0 - kept) * group.mean
        return Baselines(moved)


def advantages(
    baselines: Baselines, columns: Iterable[Column], num_turns: int, counts: Sequence[float] | None = None
) -> list[float]:
    """The advantage of each of a batch's `num_turns` turns, which count as much as `counts` says, or 1 each."""
    sums = [0.0] * num_turns
    for column in columns:
        weights = column.counts(counts)
        expected = baselines.before(column.keys, column.rewards, weights)
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


@dataclass(frozen=True)
class _Group:
    """The turns of one key in a column: how much they count together, and their mean reward."""

    count: float
    mean: float

    @classmethod
    def of(cls, entries: Iterable[tuple[float, float]]) -> "_Group":
        """From (reward, count) of each turn."""
        rewards, counts = zip(*entries, strict=True)
        return cls(sum(counts), fmean(rewards, counts))

    def shrunk_to(self, overall: float) -> float:
        return (self.count * self.mean + PRIOR_TURNS * overall) / (self.count + PRIOR_TURNS)


def _by_key(keys: Sequence[str], rewards: Sequence[float], counts: Sequence[float]) -> dict[str, _Group]:
    entries: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for key, reward, count in zip(keys, rewards, counts, strict=True):
        entries[key].append((reward, count))
    return {key: _Group.of(group) for key, group in entries.items()}


def _ones(values: Sequence[float]) -> list[float]:
    return [1.0] * len(values)
