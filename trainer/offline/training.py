"""Batches of items through the learner, one update after the other. No torch here: the learner is a `Policy`.

What the stage does between two updates stands here without its log: baselines and what was asked before go on from
batch to batch, and an alarm ends it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from infra.config import AlarmsConfig, LossConfig, LossKind, LrByEss, TrainerConfig
from ingest.sessions.chains import whole
from trainer.advantages.baselines import Baselines
from trainer.advantages.batch import Batch, make_batch
from trainer.advantages.repeats import Seen
from trainer.alarms import Alarm, Health, alarm
from trainer.inbox import Item
from trainer.learner.batching import minibatches, sample_of
from trainer.learner.update import Policy, UpdateMetrics


@dataclass(frozen=True)
class Step:
    """One update: how many turns, their mean reward, and what the learner told."""

    number: int
    num_turns: int
    reward: float
    update: UpdateMetrics


@dataclass
class Training:
    """Trains `policy` on items until there are none, or an alarm ends it.

    With `imitates` each turn is imitated, whatever its reward; else it trains by its advantage.
    """

    policy: Policy
    config: TrainerConfig
    imitates: bool = False
    on_step: Callable[[Step], None] = lambda _step: None
    steps: list[Step] = field(default_factory=list)
    trace_ids: list[str] = field(default_factory=list)
    raised: Alarm | None = None
    _baselines: Baselines = field(default_factory=Baselines)
    _seen: Seen = field(default_factory=Seen)
    _health: Health = field(default_factory=Health)

    def run(self, items: Iterable[Item]) -> None:
        """Everything in batches; the last may be a small one, a single turn has nothing to be compared with."""
        for held in _batches(items, self.config.batch_turns):
            if self.raised is None and (self.imitates or sum(len(item.eligible) for item in held) > 1):
                self._train(held)
            if self.raised is not None:
                return

    def _train(self, items: Sequence[Item]) -> None:
        number = len(self.steps)
        batch = make_batch(items, self._baselines, self.config, number, self._seen)
        if self.imitates:
            batch = imitated(batch, items, self.config, number)
        update = self.policy.update(batch.minibatches)
        measured = batch.measured(update)
        self.raised = alarm(measured, self._health, self.config.alarms)
        self._health = self._health.after(measured)
        own, counts = self.config.baselines, batch.fairness.counts
        self._baselines = self._baselines.after(batch.columns, update.moved, own, counts)
        self._seen = self._seen.after(batch.fairness.asked, self.config.near_duplicate_window)
        self.trace_ids += [turn.trace_id for turn in batch.turns]
        self.steps.append(Step(number + 1, len(batch.turns), batch.mean_reward, update))
        self.on_step(self.steps[-1])


def imitated(batch: Batch, items: Sequence[Item], config: TrainerConfig, step: int) -> Batch:
    """A batch whose turns all are as good as each other: each weighs what it counts, so that prompts asked often and
    users who ask much weigh no more than elsewhere."""
    weights = {turn.trace_id: count for turn, count in zip(batch.turns, batch.fairness.counts, strict=True)}
    samples = [sample for item in items for chain in whole(item.chains) if (sample := sample_of(chain, weights))]
    cut = minibatches(samples, config.minibatch_turns, config.microbatch_tokens, config.seed + step, config.packing)
    return replace(batch, advantages=weights, minibatches=cut)


def imitating(config: TrainerConfig) -> TrainerConfig:
    """The settings to imitate with: likelihood has no ratio, so nothing that looks at ratios applies."""
    alarms: AlarmsConfig = config.alarms.model_copy(update=dict.fromkeys(("min_ess", "max_kl", "max_mismatch")))
    loss = LossConfig(kind=LossKind.LIKELIHOOD)
    return config.model_copy(update={"loss": loss, "alarms": alarms, "lr_by_ess": LrByEss.NONE})


def with_method(config: TrainerConfig, kind: LossKind) -> TrainerConfig:
    """The same settings with another loss; clips and correction are its own."""
    own = config.loss
    if kind is own.kind:
        return config
    kept = own.model_dump(exclude={"kind", "clip_low", "clip_high", "correction"})
    return config.model_copy(update={"loss": LossConfig.model_validate({**kept, "kind": kind})})


def _batches(items: Iterable[Item], num_turns: int) -> Iterator[list[Item]]:
    """Items in order, as many as hold `num_turns` eligible turns, and what is left."""
    held: list[Item] = []
    for item in items:
        held.append(item)
        if sum(len(one.eligible) for one in held) >= num_turns:
            yield held
            held = []
    if held:
        yield held
