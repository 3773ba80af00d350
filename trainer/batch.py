"""A batch: the first rewards of the inbox, with advantages, as minibatches."""

from collections.abc import Sequence
from dataclasses import dataclass

from infra.config import TrainerConfig
from trainer.advantages import Baselines, advantages
from trainer.batching import Minibatch, minibatches, sample_of
from trainer.eligibility import Candidate
from trainer.inbox import Item


@dataclass(frozen=True)
class Batch:
    """The first `num_items` of the inbox, and the candidates in them that train."""

    num_items: int
    turns: tuple[Candidate, ...]
    keys: tuple[str, ...]
    spec: str
    minibatches: tuple[Minibatch, ...]

    @property
    def rewards(self) -> list[float]:
        return [turn.reward for turn in self.turns]


def make_batch(items: Sequence[Item], baselines: Baselines, config: TrainerConfig, step: int) -> Batch:
    """Advantages over all candidates of `items`, and their chains as minibatches."""
    owned = [(item, turn) for item in items for turn in item.candidates]
    keys = tuple(f"{turn.kind.value}:{item.tenant}" for item, turn in owned)
    turns = tuple(turn for _, turn in owned)
    values = advantages(baselines, keys, [turn.reward for turn in turns])
    by_trace = {turn.trace_id: value for turn, value in zip(turns, values, strict=True)}
    samples = [sample for item in items for chain in item.chains if (sample := sample_of(chain, by_trace))]
    cut = minibatches(samples, config.minibatch_turns, config.microbatch_tokens, config.seed + step)
    return Batch(len(items), turns, keys, ",".join(sorted({item.spec for item, _ in owned})), cut)
