"""A step of the version in the making: some turns of the inbox, what each is worth, and an update of the learner.

An alarm undoes a step. Where the learner stands on stable itself these turns are what is wrong, and they never train.
Where it has gone on from there, that may be what is wrong: the version in the making is closed without them, and they
wait for the next.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median

from infra import telemetry
from infra.config import TrainerConfig
from infra.telemetry import metrics as measured
from infra.telemetry import names
from ingest.log import topics
from ingest.records.events import FEEDBACK_AT, FEEDBACK_FROM, FEEDBACK_TO, SESSIONS_FROM, SESSIONS_TO
from ingest.store.releases import Served
from trainer import telling
from trainer.advantages.batch import Batch, make_batch
from trainer.advantages.repeats import Seen
from trainer.alarms import Alarm, Health, alarm
from trainer.eligibility import EligibleTurn, Ineligible, Reason, eligibility_of
from trainer.inbox import GROUP, UNSCORED, Item
from trainer.keeping import Keeper
from trainer.learner.update import Policy, UpdateMetrics
from trainer.making import grown, used_of
from trainer.state import MAX_WAITING, Making, Used

logger = logging.getLogger(__name__)


class Stepper:
    """Steps, each of which ends with a checkpoint."""

    def __init__(self, keeper: Keeper, policy: Policy, config: TrainerConfig, now: Callable[[], float]) -> None:
        self._keeper, self._policy, self._config, self._now = keeper, policy, config, now

    def rule_out(self, served: Served) -> None:
        """Turns of the inbox that the release log, as it is now, does not let train."""
        candidate = self._keeper.state.candidate
        own = candidate.version if candidate else None

        def reason(_item: Item, turn: EligibleTurn) -> Ineligible | None:
            found = eligibility_of(turn, served, own, self._config.max_staleness)
            return found if isinstance(found, Ineligible) else None

        self._keeper.inbox.resolve(reason)

    def step(self, served: Served, number: int) -> None:
        """Train on the first turns of the inbox. `number` is the version's, if nobody else takes it."""
        state, inbox = self._keeper.state, self._keeper.inbox
        items = inbox.items[: inbox.num_items_for(self._config.batch_turns)]
        batch = make_batch(items, state.baselines, self._config, state.step, Seen(state.seen))
        used = [item for item in items if item.eligible]
        about = names.messaging("process", topics.REWARDS.name) | {names.GROUP: GROUP, names.VERSION: number}
        about |= {names.BATCH_COUNT: len(used), names.NUM_TURNS: len(batch.turns)}
        with telemetry.span(names.TRAIN, about, links=(item.context for item in used), of=topics.REWARDS.name):
            metrics = self._train(batch, number)
            seen, before = batch.measured(metrics), self._keeper.state.health
            raised, health = alarm(seen, before, self._config.alarms), before.after(seen)
            if raised is not None:
                self._undo(items, batch, raised, health)
                return
            telling.trained(batch, served)
            self._accept(items, batch, metrics, telling.staleness(batch, served), health)

    def _train(self, batch: Batch, number: int) -> UpdateMetrics:
        began = time.monotonic()
        with telemetry.span(names.UPDATE, {names.VERSION: number, names.NUM_TURNS: len(batch.turns)}):
            metrics = self._policy.update(batch.minibatches)
        telemetry.record(measured.UPDATE_DURATION, time.monotonic() - began)
        telling.updated(metrics)
        return metrics

    def _accept(
        self,
        items: Sequence[Item],
        batch: Batch,
        metrics: UpdateMetrics,
        staleness: Mapping[str, float],
        health: Health,
    ) -> None:
        """An update that stands."""
        state, own = self._keeper.state, self._config
        waiting = self._waiting(items)
        used = used_of(items, (turn.trace_id for turn in batch.turns), waiting)
        making = state.making or Making(begun_at=self._now())
        if not making.num_turns:  # what was let go for it before says nothing of how old it is
            making = making.model_copy(update={"begun_at": self._now()})
        said = telemetry.headers_out()
        more = {**_times_of([item for item in items if item.eligible]), **staleness}
        making = grown(making, used, batch, metrics, more, said)
        counts = batch.fairness.counts
        self._keeper.use(
            batch.num_items,
            used,
            making,
            save=self._policy.save,
            waiting=waiting,
            step=state.step + 1,
            baselines=state.baselines.after(batch.columns, metrics.moved, own.baselines, counts),
            seen=dict(Seen(state.seen).after(batch.fairness.asked, own.near_duplicate_window).sketches),
            mean_reward=batch.mean_reward,
            health=health,
        )
        telling.stepped(batch, metrics, making)

    def _undo(self, items: Sequence[Item], batch: Batch, raised: Alarm, health: Health) -> None:
        """The learner and its baselines are as before."""
        state, reason = self._keeper.state, raised.told
        telemetry.count(measured.UPDATES_DISCARDED, 1, {names.CAUSE: raised.kind.value})
        if state.candidate is not None or state.making is not None:
            logger.error("a step of %d turns is undone, its version takes no more: %s", len(batch.turns), reason)
            # `health` stays: these turns come again, and are not to be what they are compared with
            self._keeper.close_making(state.making or Making(begun_at=self._now()), reason)
        else:
            logger.error("a step of %d turns is undone, and they never train: %s", len(batch.turns), reason)
            self.let_go([_refused(item) for item in items], health=health)
        self._keeper.bring_learner()

    def let_go(self, items: Sequence[Item], health: Health | None = None, *, is_decided: bool = False) -> None:
        """The first items of the inbox are used, and none of it trains; with `is_decided`, whatever a trial says."""
        state = self._keeper.state
        waiting = self._waiting(items)
        used = used_of(items, (), waiting)
        making = state.making or (Making(begun_at=self._now()) if state.candidate else None)
        making = None if making is None or is_decided else making.using(used)
        self._keeper.use(len(items), used, making, waiting=waiting, health=health or state.health)

    def _waiting(self, items: Sequence[Item]) -> dict[str, float]:
        """Unscored turns of these that late feedback may score yet."""
        late_after = self._now() - self._config.late_feedback_s
        return {name: at for item in items for name, at in item.waiting(late_after).items()}

    def stop_waiting(self, log_keeps_from: float) -> None:
        """Refuse turns that nobody scored in time, or while the log keeps them."""
        inbox = self._keeper.inbox
        if not inbox.waiting:
            return
        late_after = inbox.read_until(self._now()) - self._config.late_feedback_s
        names = inbox.stop_waiting(max(late_after, log_keeps_from), MAX_WAITING)
        if names:
            self._keeper.end(Used(trace_ids=names, kind=UNSCORED.fate, reason=UNSCORED.told))


def _refused(item: Item) -> Item:
    discarded = {turn.trace_id: Ineligible(Reason.DISCARDED) for turn in item.eligible}
    return replace(item, turns={**item.turns, **discarded})


def _times_of(used: Sequence[Item]) -> dict[str, float]:
    """When the batch's sessions began and its feedback was given, as metrics of its version.

    The rollout tells how long the feedback took to be served, and `onstream lineage` what a version is made of.
    """
    began, given = [item.opened_at for item in used], [at for item in used for at in item.feedback_at]
    times = {SESSIONS_FROM: min(began), SESSIONS_TO: max(began)}
    if given:
        times |= {FEEDBACK_AT: median(given), FEEDBACK_FROM: min(given), FEEDBACK_TO: max(given)}
    return times
