"""A batch: the first rewards of the inbox, with advantages, as minibatches.

How much a turn counts is settled in two steps, neither of which drops one or lets it count for more than 1:

    1. counts    1/n where n turns were asked alike, scaled so that no user has more than their cap of the turns: they
                 weigh the means and deviations that advantages and baselines are made from
    2. weights   counts, scaled so that no user has more than their cap of the sum, over trained tokens, of
                 weight x |advantage|: they multiply the advantages

The loss is linear in the advantages, so step 2 bounds what a user adds to a batch's gradient: see docs/fairness.md.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from infra.config import TrainerConfig
from ingest.sessions.chains import whole
from trainer.advantages.caps import Capped, Owner, cap
from trainer.advantages.keyed import Baselines, Column, advantages
from trainer.advantages.repeats import Asked, Seen, num_alike
from trainer.alarms import Measured
from trainer.eligibility import EligibleTurn
from trainer.inbox import Item
from trainer.learner.batching import Minibatch, minibatches, sample_of
from trainer.learner.update import UpdateMetrics


@dataclass(frozen=True)
class Fairness:
    """How much each turn of a batch counts, and what that bounds. `num_alike[i]` turns were asked like turn i."""

    asked: tuple[Asked, ...]
    num_alike: tuple[int, ...]
    counts: tuple[float, ...]
    weights: tuple[float, ...]
    capped: Capped

    @property
    def num_near_duplicates(self) -> int:
        return sum(num > 1 for num in self.num_alike)

    def numbers(self) -> dict[str, float]:
        """As a manifest's metrics."""
        return {
            "fair.user_cap": self.capped.user_cap,
            "fair.user_share": self.capped.user_share,
            "fair.user_share_uncapped": self.capped.user_share_before,
            "fair.tenant_cap": self.capped.tenant_cap,
            "fair.tenant_share": self.capped.tenant_share,
            "fair.users": float(self.capped.num_users),
            "fair.tenants": float(self.capped.num_tenants),
            "fair.near_duplicates": float(self.num_near_duplicates),
            "fair.effective_turns": sum(self.weights) ** 2 / sum(weight**2 for weight in self.weights),
        }


@dataclass(frozen=True)
class Batch:
    """The first `num_items` of the inbox, and the turns in them that train; `advantages` by trace id, weighted."""

    num_items: int
    turns: tuple[EligibleTurn, ...]
    advantages: Mapping[str, float]
    columns: tuple[Column, ...]
    spec: str
    minibatches: tuple[Minibatch, ...]
    fairness: Fairness

    @property
    def mean_reward(self) -> float:
        """Of the turns' values."""
        return fmean(turn.reward for turn in self.turns)

    def measured(self, update: UpdateMetrics) -> Measured:
        """It and what the learner made of it, for the alarms."""
        rewards = [turn.reward for turn in self.turns]
        num = max(1.0, self.fairness.numbers()["fair.effective_turns"])
        return Measured(self.spec, self.mean_reward, pstdev(rewards) / math.sqrt(num), update)

    @property
    def mean_parts(self) -> dict[str, float]:
        """The mean of each part over the turns that have it, as metrics."""
        return {f"reward.{column.part}": fmean(column.rewards) for column in self.columns}


def make_batch(
    items: Sequence[Item], baselines: Baselines, config: TrainerConfig, step: int, seen: Seen | None = None
) -> Batch:
    """Advantages over all eligible turns of `items`, and their chains as minibatches. `seen` trained before.

    Chains are made whole here and no earlier: what waits in the inbox holds each shared token once.
    """
    owned = [(item, turn) for item in items for turn in item.eligible]
    turns, columns = tuple(turn for _, turn in owned), _columns(owned)
    asked = tuple(Asked(item.tenant, turn.sketch) for item, turn in owned)
    alike = num_alike(asked, seen or Seen(), config.near_duplicate_from)
    owners = [Owner(item.tenant, item.owner) for item, _ in owned]
    counts = _counts(alike, owners, config)
    values = advantages(baselines, columns, len(turns), counts)
    masses = [abs(x) * count * num for x, count, num in zip(values, counts, _num_tokens(owned), strict=True)]
    capped = cap(masses, owners, config.max_user_share, config.max_tenant_share)
    weights = tuple(count * factor for count, factor in zip(counts, capped.factors, strict=True))
    by_trace = {turn.trace_id: x * weight for turn, x, weight in zip(turns, values, weights, strict=True)}
    samples = [sample for item in items for chain in whole(item.chains) if (sample := sample_of(chain, by_trace))]
    cut = minibatches(samples, config.minibatch_turns, config.microbatch_tokens, config.seed + step, config.packing)
    spec = ",".join(sorted({item.spec for item, _ in owned}))
    return Batch(
        len(items), turns, by_trace, columns, spec, cut, Fairness(asked, tuple(alike), counts, weights, capped)
    )


def _counts(alike: Sequence[int], owners: Sequence[Owner], config: TrainerConfig) -> tuple[float, ...]:
    """Step 1. The largest is 1: where all are asked alike, all count."""
    shares = [1.0 / num for num in alike]
    factors = cap(shares, owners, config.max_user_share, config.max_tenant_share).factors
    counts = [share * factor for share, factor in zip(shares, factors, strict=True)]
    most = max(counts, default=1.0)
    return tuple(count / most for count in counts)


def _num_tokens(owned: Iterable[tuple[Item, EligibleTurn]]) -> list[int]:
    """Trained tokens of each turn."""
    found: list[int] = []
    lengths: dict[str, int] = {}
    for item, turn in owned:
        if turn.trace_id not in lengths:
            lengths = {seg.trace_id: seg.end - seg.start for chain in item.chains for seg in chain.segments}
        found.append(lengths[turn.trace_id])
    return found


def _columns(owned: Sequence[tuple[Item, EligibleTurn]]) -> tuple[Column, ...]:
    """A column for each part's name. Summaries are expected to earn what summaries earn, and so for each tenant."""
    rows: dict[str, list[tuple[int, str, float, float]]] = defaultdict(list)
    for number, (item, turn) in enumerate(owned):
        for part in turn.parts:
            key = f"{turn.kind.value}:{part.name}:{item.tenant}"
            rows[part.name].append((number, key, part.weight, part.value))
    return tuple(Column(name, *zip(*entries, strict=True)) for name, entries in sorted(rows.items()))
