"""A batch: the first rewards of the inbox, with advantages, as minibatches.

How much a turn counts is settled in two steps, neither of which drops one or lets it count for more than 1:

    1. counts    its share of its trajectory, over n where n turns were asked alike, scaled so that no user has more
                 than their cap of the turns: they weigh the means and deviations of advantages and baselines
    2. weights   what of that each token has, scaled so that no user has more than their cap of the sum, over trained
                 tokens, of weight x |advantage|: they multiply the advantages. The pull of a hint, which they multiply
                 too, is taken to be as strong as it can be

A trajectory's turns share its outcome, and it is trajectories that users are pleased with, so those of one count 1
together, however many they are (`trainer.trajectory_weight`; Agent Lightning, arXiv 2508.17528, averages each rollout's
rows for the same reason). With m turns that train and T tokens in them, a turn of t tokens has

                 of the counts   of the loss, each token
    turns        1 / m           1 / m                     long turns still pull more than short ones
    tokens       t / T           1 / T                     a trajectory pulls as much as another, whatever its length
    none         1               1                         it pulls as much as it is long

What the replay lane asked for is measured within its groups (`groups`), all else against baselines: a group is one
session, so it counts as one trajectory, by its importance.

The loss is linear in the advantages, so step 2 bounds what a user adds to a batch's gradient: see docs/fairness.md.
"""

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev

from infra.config import TrainerConfig, TrajectoryWeight
from ingest.sessions.chains import whole
from trainer.advantages.baselines import Baselines, Column, Key
from trainer.advantages.caps import Capped, Owner, cap
from trainer.advantages.groups import InGroups, Shape, grouped, in_groups
from trainer.advantages.keyed import advantages
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
    groups: Mapping[Shape, int] = field(default_factory=dict)
    replays: frozenset[str] = frozenset()

    @property
    def mean_reward(self) -> float:
        """Of the turns' values; replays, which no user had, only where there is nothing else."""
        own = [turn.reward for turn in self.turns if turn.trace_id not in self.replays]
        return fmean(own or [turn.reward for turn in self.turns])

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
    turns, compared = tuple(turn for _, turn in owned), _in_groups(owned)
    columns = _columns(owned, compared.values)
    asked = tuple(Asked(item.tenant, "" if item.group else turn.sketch) for item, turn in owned)
    alike = num_alike(asked, seen or Seen(), config.near_duplicate_from)
    owners = [Owner(item.tenant, item.owner) for item, _ in owned]
    lengths = _num_tokens(owned)
    shares = _of_trajectories(items, lengths, config.trajectory_weight)
    shares = [share.times(compared.importance.get(number, 1.0)) for number, share in enumerate(shares)]
    counts, pulls = _counts(shares, alike, owners, config)
    of_single = [0.0 if number in compared.values else count for number, count in enumerate(counts)]
    of = _trajectories(owned)
    found = advantages(baselines, columns, len(turns), config.baselines, of_single, of) if any(of_single) else of_single
    values = [compared.values.get(number, x) for number, x in enumerate(found)]
    hint = config.loss.hint_weight * config.loss.max_hint_gap
    sizes = [abs(x) + (hint if turn.is_corrected else 0.0) for turn, x in zip(turns, values, strict=True)]
    masses = [size * pull * num for size, pull, num in zip(sizes, pulls, lengths, strict=True)]
    capped = cap(masses, owners, config.max_user_share, config.max_tenant_share)
    weights = tuple(pull * factor for pull, factor in zip(pulls, capped.factors, strict=True))
    by_trace = {turn.trace_id: x * weight for turn, x, weight in zip(turns, values, weights, strict=True)}
    hints = {turn.trace_id: weight for turn, weight in zip(turns, weights, strict=True) if turn.is_corrected}
    chains = (chain for item in items for chain in whole(item.chains))
    samples = [sample for chain in chains if (sample := sample_of(chain, by_trace, hints))]
    cut = minibatches(samples, config.minibatch_turns, config.microbatch_tokens, config.seed + step, config.packing)
    spec = ",".join(sorted({item.spec for item, _ in owned}))
    fairness = Fairness(asked, tuple(alike), counts, weights, capped)
    replays = frozenset(turn.trace_id for item, turn in owned if item.group)
    columns = _columns(owned, {number for number, turn in enumerate(turns) if turn.trace_id in replays})
    return Batch(len(items), turns, by_trace, columns, spec, cut, fairness, compared.shapes, replays)


def _in_groups(owned: Sequence[tuple[Item, EligibleTurn]]) -> InGroups:
    """What the lane asked for, as far as there is something to compare."""
    asked: dict[int, list[int]] = defaultdict(list)
    for number, (item, _) in enumerate(owned):
        if item.group:
            asked[id(item)].append(number)
    found = []
    for numbers in asked.values():
        item = owned[numbers[0]][0]
        assert item.group is not None
        found.append(grouped(item.group, numbers, [turn.parts for turn in item.eligible], item.spec))
    groups = [one for one in found if one is not None]
    return in_groups(groups, len(found) - len(groups))


def _trajectories(owned: Iterable[tuple[Item, EligibleTurn]]) -> list[int]:
    """A number of its own for each trajectory, by turn."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(id(item), len(numbers)) for item, _ in owned]


@dataclass(frozen=True)
class _Share:
    """What a turn has of its trajectory: as an observation, and each of its tokens as a part of the loss."""

    of_counts: float
    of_loss: float

    def times(self, importance: float) -> "_Share":
        """Of a group that counts for as much more or less than one prompt."""
        return _Share(self.of_counts * importance, self.of_loss * importance)


def _of_trajectories(items: Iterable[Item], lengths: Iterable[int], weight: TrajectoryWeight) -> list[_Share]:
    """For each turn of the batch. `lengths` are their trained tokens."""
    left = iter(lengths)
    trajectories = ([next(left) for _ in item.eligible] for item in items)
    return [_share(length, of, weight) for of in trajectories for length in of]


def _share(length: int, of: Sequence[int], weight: TrajectoryWeight) -> _Share:
    """What a turn of `length` tokens has of a trajectory whose turns have these."""
    match weight:
        case TrajectoryWeight.NONE:
            return _Share(1.0, 1.0)
        case TrajectoryWeight.TURNS:
            return _Share(1.0 / len(of), 1.0 / len(of))
        case TrajectoryWeight.TOKENS:
            return _Share(length / sum(of), 1.0 / sum(of))


def _counts(
    shares: Sequence[_Share], alike: Sequence[int], owners: Sequence[Owner], config: TrainerConfig
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Step 1, and what of it each token has. The largest is 1: where all are asked alike, all count."""
    counts = [share.of_counts / num for share, num in zip(shares, alike, strict=True)]
    factors = cap(counts, owners, config.max_user_share, config.max_tenant_share).factors
    counts = [count * factor for count, factor in zip(counts, factors, strict=True)]
    pulls = [share.of_loss / num * factor for share, num, factor in zip(shares, alike, factors, strict=True)]
    return _to_one(counts), _to_one(pulls)


def _to_one(values: Sequence[float]) -> tuple[float, ...]:
    most = max(values, default=1.0)
    return tuple(value / most for value in values)


def _num_tokens(owned: Iterable[tuple[Item, EligibleTurn]]) -> list[int]:
    """Trained tokens of each turn."""
    found: list[int] = []
    lengths: dict[str, int] = {}
    for item, turn in owned:
        if turn.trace_id not in lengths:
            lengths = {seg.trace_id: seg.end - seg.start for chain in item.chains for seg in chain.segments}
        found.append(lengths[turn.trace_id])
    return found


def _columns(owned: Sequence[tuple[Item, EligibleTurn]], left_out: Container[int]) -> tuple[Column, ...]:
    """A column for each part's name. Summaries are expected to earn what summaries earn, and
    so for each tenant."""
    rows: dict[str, list[tuple[int, Key, float, float]]] = defaultdict(list)
    for number, (item, turn) in enumerate(owned):
        for part in turn.parts if number not in left_out else ():
            key = (part.name, turn.kind.value, item.tenant, turn.setup.task, turn.setup.tools)
            rows[part.name].append((number, key, part.weight, part.value))
    return tuple(Column(name, *zip(*entries, strict=True)) for name, entries in sorted(rows.items()))
