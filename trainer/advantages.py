"""Advantages when production gives one response per prompt.

With a group of one, GRPO's group baseline is the reward itself (advantage 0) or absent (advantage = raw reward).
Neither learns. Here a response is measured against a persistent baseline of its key, then the batch is whitened:

    A_i = whiten(r_i - b[key_i]),   whiten(x) = (x - mean(x)) / (std(x) + eps)        over the whole batch

- keyed persistent baseline, used before it is updated: SPO (arXiv 2509.13232, section 3.2)
- exponential mean with decay 0.95 per key: RAE in SPIRAL (arXiv 2506.24119)
- whitening over the global batch, not the group: REINFORCE++ (arXiv 2501.03262)
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev

EPS = 1e-6
PRIOR_TURNS = 8
"""A new key's mean is shrunk to the batch's as if by this many turns: SPO's N_init = 1 / (1 - rho_min) = 8."""


@dataclass(frozen=True)
class Baselines:
    """The reward to expect, per key. Immutable: `after` gives the next one."""

    values: Mapping[str, float] = field(default_factory=dict)

    def before(self, keys: Sequence[str], rewards: Sequence[float]) -> dict[str, float]:
        """The baseline of every key in a batch, from what was known before it.

        A key seen for the first time begins at its own mean in this batch, shrunk to the mean of the whole batch.
        Without the shrinkage a key with one turn would be its own baseline and never train.
        """
        overall = fmean(rewards)
        groups = _by_key(keys, rewards)
        return {key: self.values.get(key, _shrunk(group, overall)) for key, group in groups.items()}

    def after(self, keys: Sequence[str], rewards: Sequence[float], decay: float) -> "Baselines":
        """The baselines once a batch has been used.

        A key's n turns move it as n updates `b <- decay b + (1 - decay) r` would by weight, but to their mean,
        so that the order of turns inside a batch does not matter.
        """
        moved = dict(self.values)
        used = self.before(keys, rewards)
        for key, group in _by_key(keys, rewards).items():
            kept = decay ** len(group)
            moved[key] = kept * used[key] + (1.0 - kept) * fmean(group)
        return Baselines(moved)


def advantages(baselines: Baselines, keys: Sequence[str], rewards: Sequence[float]) -> list[float]:
    """Whitened advantages of a batch; `keys[i]` is the baseline key of `rewards[i]`."""
    if not rewards:
        return []
    expected = baselines.before(keys, rewards)
    return whiten([reward - expected[key] for key, reward in zip(keys, rewards, strict=True)])


def whiten(values: Sequence[float]) -> list[float]:
    """Mean 0 and standard deviation 1 over a batch; all zeros where every value is the same."""
    mean, std = fmean(values), pstdev(values)
    return [(value - mean) / (std + EPS) for value in values]


def _shrunk(group: Sequence[float], overall: float) -> float:
    return (sum(group) + PRIOR_TURNS * overall) / (len(group) + PRIOR_TURNS)


def _by_key(keys: Sequence[str], rewards: Sequence[float]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for key, reward in zip(keys, rewards, strict=True):
        groups[key].append(reward)
    return groups
