"""A batch: the first rewards of the inbox, with advantages, as minibatches."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from infra.config import TrainerConfig
from ingest.sessions.chains import whole
from trainer.advantages import Baselines, Column, advantages
from trainer.batching import Minibatch, minibatches, sample_of
from trainer.eligibility import EligibleTurn
from trainer.inbox import Item


@dataclass(frozen=True)
class Batch:
    """The first `num_items` of the inbox, and the turns in them that train."""

    num_items: int
    turns: tuple[EligibleTurn, ...]
    columns: tuple[Column, ...]
    spec: str
    minibatches: tuple[Minibatch, ...]

    @property
    def mean_reward(self) -> float:
        """Of the turns' values."""
        return fmean(turn.reward for turn in self.turns)

    @property
    def mean_parts(self) -> dict[str, float]:
        """The mean of each part over the turns that have it, as metrics."""
        return {f"reward.{column.part}": fmean(column.rewards) for column in self.columns}


def make_batch(items: Sequence[Item], baselines: Baselines, config: TrainerConfig, step: int) -> Batch:
    """Advantages over all eligible turns of `items`, and their chains as minibatches.

    Chains are made whole here and no earlier: what waits in the inbox holds each shared token once.
    """
    owned = [(item, turn) for item in items for turn in item.eligible]
    turns, columns = tuple(turn for _, turn in owned), _columns(owned)
    values = advantages(baselines, columns, len(turns))
    by_trace = {turn.trace_id: value for turn, value in zip(turns, values, strict=True)}
    samples = [sample for item in items for chain in whole(item.chains) if (sample := sample_of(chain, by_trace))]
    cut = minibatches(samples, config.minibatch_turns, config.microbatch_tokens, config.seed + step)
    return Batch(len(items), turns, columns, ",".join(sorted({item.spec for item, _ in owned})), cut)


def _columns(owned: Sequence[tuple[Item, EligibleTurn]]) -> tuple[Column, ...]:
    """A column for each part's name. Summaries are expected to earn what summaries earn, and so for each tenant."""
    rows: dict[str, list[tuple[int, str, float, float]]] = defaultdict(list)
    for number, (item, turn) in enumerate(owned):
        for part in turn.parts:
            key = f"{turn.kind.value}:{part.name}:{item.tenant}"
            rows[part.name].append((number, key, part.weight, part.value))
    return tuple(Column(name, *zip(*entries, strict=True)) for name, entries in sorted(rows.items()))
