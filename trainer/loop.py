"""The trainer's stage: a batch of rewarded turns becomes a version, and what its trial decides follows.

The order of an update, and what a kill before each step leaves:

    1. batch        turns ruled out, advantages, the version's number   nothing happened
    2. update       the learner's weights, in memory                    nothing happened: the batch is read again
    3. flush        dead letters are durable                            as 2
    4. checkpoint   weights, baselines, positions, the batch's fates    as 2; a restart makes the same batch's update
    5. publish      store, then the `versions` record                   a restart publishes the same bytes
    6. fates        appended and flushed                                a restart sends the same fates again
    7. checkpoint   published, no fates owed                            a restart repeats 5 and 6, to no effect
    8. commit       the group's positions, a hint for its lag           the lag is too high until the next

While the release log says that everything is frozen no batch is begun, and steps 5 to 7 wait for one that was.

Every trace of a batch's rewards gets its fate with the batch, those that did not train too. Rewards at the head of
the inbox in which nothing can train do not wait for a batch: steps 3, 4, 6, 7 and 8 without an update.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from infra import telemetry
from infra.config import Config
from infra.lifecycle import Stop
from infra.telemetry import metrics as measured
from infra.telemetry import names
from ingest.log import fates, topics
from ingest.log.protocol import EventLog
from ingest.records.events import (
    FEEDBACK_AT,
    FEEDBACK_FROM,
    FEEDBACK_TO,
    SESSIONS_FROM,
    SESSIONS_TO,
    Fate,
    FateKind,
    Mode,
)
from ingest.sessions.contamination import TaskIndex
from ingest.store.releases import Decision, ReleaseFollower, Served
from ingest.store.versions import VersionStore
from trainer import phases, telling
from trainer.advantages.batch import Batch, Fairness, make_batch
from trainer.advantages.keyed import Baselines
from trainer.advantages.repeats import Seen
from trainer.checkpoint import Checkpoints, Save, scratch_of
from trainer.eligibility import EligibleTurn, Ineligible, Reason, eligibility_of
from trainer.inbox import GROUP, Inbox, Item
from trainer.learner.update import Policy, UpdateMetrics, alarm
from trainer.phases import Phase
from trainer.publish import publish
from trainer.state import CandidateVersion, Fallback, State, as_offsets, remember

logger = logging.getLogger(__name__)

POLL_S = 0.5
SETTLE_S = 30.0
MAX_BATCHES_HELD = 4
"""Batches read ahead while a trial runs. More would be refused as stale before their turn came."""
MAX_FATED = 65_536
"""Traces remembered, so that a reward that comes again trains nothing: an outage's worth of repetitions, 3 MB."""
EXPIRE_AT_SHARE = 0.9
"""A reward leaves the log at `log.retention_s`; its turns get their fate while a restart could still read it."""


class Trainer:
    """One run of the stage, from what the checkpoint and the log say. `now` is Unix time, `tasks` must never train."""

    def __init__(
        self,
        config: Config,
        log: EventLog,
        store: VersionStore,
        policy: Policy,
        stop: Stop,
        now: Callable[[], float] = time.time,
        tasks: TaskIndex | None = None,
    ) -> None:
        self._config, self._log, self._store, self._policy, self._stop, self._now = (
            config,
            log,
            store,
            policy,
            stop,
            now,
        )
        self._folder = scratch_of(config)
        self._checkpoints = Checkpoints(config.trainer.checkpoint_dir)
        self.state = self._checkpoints.read() or State()
        self.phase = Phase.WAITING
        altered = config.privacy.train_altered
        self._inbox = Inbox(log, self.state.positions, self.state.fated, tasks, altered)
        self._releases = ReleaseFollower(log)
        self._settle_at = now() + SETTLE_S
        self.status: Mapping[str, object] = {"phase": self.phase.value}
        telemetry.observe(measured.TURNS_COLLECTED, lambda: self._inbox.num_eligible)
        telemetry.observe(measured.RELEASE_LAST, lambda: self._releases.served.last)
        telemetry.observe(measured.TRAINER_PHASE, lambda: telling.phases(self.phase))

    def run(self) -> None:
        """Until stopped. Raises `LogError` and `StoreError`; a new `Trainer` then goes on from the checkpoint."""
        try:
            self.recover()
            while not self._stop.is_set():
                self.tick()
                self._stop.pulse.beat()
        finally:
            self.close()

    def close(self) -> None:
        """Leave the log's groups."""
        self._inbox.close()
        self._releases.close()

    def recover(self) -> None:
        """Bring the learner to the checkpoint, and finish what it says was begun."""
        self._load_learner()
        served = self._releases.catch_up()
        self._finish()
        if self.state.candidate:
            self._enter(Phase.TRIAL)
        elif self.state.base is not None:
            self._enter(Phase.COLLECTING)
        self._follow(served)
        self._show()

    def tick(self) -> None:
        """Read what is new, follow the release log, and update when a batch is full."""
        self._follow(self._releases.poll(0.0))
        if self._owes:
            self._finish()
        self._read()
        if self.phase is Phase.COLLECTING and self._is_full(1):
            self._update()
        if self._now() >= self._settle_at:
            self._settle()
        self._show()

    # -- reading

    def _read(self) -> None:
        """Poll, or leave the group while the inbox is full: a member that does not poll would be expelled anyway."""
        if self._is_full(MAX_BATCHES_HELD):
            self._inbox.close()
            self._stop.wait(POLL_S)
        else:
            self._inbox.poll(POLL_S)

    def _is_full(self, num_batches: int) -> bool:
        return self._inbox.num_eligible >= num_batches * self._config.trainer.batch_turns

    def _settle(self) -> None:
        """Give fates to the rewards at the head of the inbox in which nothing can train."""
        self._settle_at = self._now() + SETTLE_S
        self._inbox.expire(self._now() - EXPIRE_AT_SHARE * self._config.log.retention_s)
        num_items = self._inbox.num_leading_ineligible(self._now() - self._config.trainer.late_feedback_s)
        if num_items:
            self._use(num_items, self._fates(num_items))

    # -- the release log

    def _follow(self, served: Served) -> None:
        """Take the decision on the candidate, and stand on the stable version."""
        candidate = self.state.candidate
        if candidate:
            decision = served.decision(candidate.version)
            if decision is Decision.UNDECIDED:
                return
            self._promoted(candidate) if decision is Decision.PROMOTED else self._rejected(candidate)
            self._enter(Phase.COLLECTING)
        if served.stable is not None and served.stable != self.state.base:
            logger.info("stands on version %d, the stable one, from the store", served.stable)
            self._commit(base=served.stable, learner=None)
            self._load_learner()
            if self.phase is Phase.WAITING:
                self._enter(Phase.COLLECTING)

    def _promoted(self, candidate: CandidateVersion) -> None:
        logger.info("version %d was promoted: training goes on from it", candidate.version)
        self._commit(base=candidate.version, candidate=None, fallback=None)

    def _rejected(self, candidate: CandidateVersion) -> None:
        """Weights, optimiser, baselines and what was seen as they were before the update."""
        assert self.state.fallback is not None
        logger.info("version %d was not promoted: back to version %d", candidate.version, candidate.parent)
        fallback = self.state.fallback
        self._commit(
            learner=fallback.learner,
            baselines=fallback.baselines,
            seen=fallback.seen,
            candidate=None,
            fallback=None,
        )
        self._load_learner()

    def _load_learner(self) -> None:
        """The state that the checkpoint names, or its base version from the store with a fresh optimiser."""
        if self.state.learner is not None:
            self._policy.restore(self._checkpoints.learner(self.state.learner))
        elif self.state.base is not None:
            copies = self._folder / "stable"
            self._policy.load(self._store.fetch(self._store.read(self.state.base), copies))
            shutil.rmtree(copies)

    # -- the update

    def _update(self) -> None:
        """Steps 1 to 8, if the release log as it is now lets the batch be made."""
        served = self._releases.catch_up()
        self._follow(served)
        if self.phase is not Phase.COLLECTING or served.on_trial is not None or served.mode is Mode.FROZEN:
            return
        self._inbox.resolve(lambda _item, turn: self._ruled_out(turn, served))
        if not self._is_full(1):
            return
        self._enter(Phase.UPDATING)
        self._show()
        num_items = self._inbox.num_items_for(self._config.trainer.batch_turns)
        items, number = self._inbox.items[:num_items], 1 + max(self._store.versions(), default=-1)
        baselines, seen = Baselines(self.state.baselines), Seen(self.state.seen)
        batch = make_batch(items, baselines, self._config.trainer, self.state.step, seen)
        used = [item for item in items if item.eligible]
        about = names.messaging("process", topics.REWARDS.name) | {names.GROUP: GROUP, names.VERSION: number}
        about |= {names.BATCH_COUNT: len(used), names.NUM_TURNS: len(batch.turns)}
        with telemetry.span(names.TRAIN, about, links=(item.context for item in used), of=topics.REWARDS.name):
            metrics = self._train(batch, number)
            reason = alarm(metrics)
            if reason is not None:
                self._discard(batch, number, reason)
                return
            telling.trained(batch, served)
            self._accept(batch, number, metrics, used)

    def _ruled_out(self, turn: EligibleTurn, served: Served) -> Ineligible | None:
        found = eligibility_of(turn, served, None, self._config.trainer.max_staleness)
        return found if isinstance(found, Ineligible) else None

    def _train(self, batch: Batch, number: int) -> UpdateMetrics:
        began = time.monotonic()
        with telemetry.span(names.UPDATE, {names.VERSION: number, names.NUM_TURNS: len(batch.turns)}):
            metrics = self._policy.update(batch.minibatches)
        telemetry.record(measured.UPDATE_DURATION, time.monotonic() - began)
        telling.updated(metrics)
        return metrics

    def _accept(self, batch: Batch, number: int, metrics: UpdateMetrics, used: Sequence[Item]) -> None:
        """Steps 3 to 8 for an update that stands."""
        assert self.state.base is not None
        candidate = CandidateVersion(
            version=number,
            parent=self.state.base,
            trace_ids=tuple(turn.trace_id for turn in batch.turns),
            spec=batch.spec,
            metrics={
                "mean_reward": batch.mean_reward,
                **batch.mean_parts,
                **batch.fairness.numbers(),
                **metrics.numbers(),
                **_times_of(used),
            },
            at=self._now(),
            context=telemetry.headers_out(),
        )
        trained = {
            turn.trace_id: Fate(
                trace_ids=(turn.trace_id,),
                kind=FateKind.TRAINED,
                version=number,
                reason=f"trained in version {number}",
                at=candidate.at,
            )
            for turn in batch.turns
        }
        own, counts = self._config.trainer, batch.fairness.counts
        baselines = Baselines(self.state.baselines).after(batch.columns, own.baseline_decay, counts)
        seen = Seen(self.state.seen).after(batch.fairness.asked, own.near_duplicate_window)
        self._use(
            batch.num_items,
            self._fates(batch.num_items) | trained,
            save=self._policy.save,
            step=self.state.step + 1,
            baselines=dict(baselines.values),
            seen=dict(seen.sketches),
            candidate=candidate,
            fallback=Fallback(learner=self.state.learner, baselines=self.state.baselines, seen=self.state.seen),
            mean_reward=batch.mean_reward,
        )
        self._enter(Phase.TRIAL)
        _tell_fairness(batch.fairness)
        logger.info(
            "batch %d turns, mean reward %.3f, %d steps, loss %.4f, kl %.5f, ess %.2f, clipped %.3f, grad norm %.3f, "
            "published version %d (parent %d)",
            len(batch.turns),
            batch.mean_reward,
            metrics.num_steps,
            metrics.loss,
            metrics.kl,
            metrics.ess,
            metrics.clip_fraction,
            metrics.grad_norm,
            number,
            candidate.parent,
        )

    def _discard(self, batch: Batch, number: int, reason: str) -> None:
        """An alarm: the batch is used up, the learner and its baselines are as before, nothing is published."""
        logger.error("batch %d turns: version %d is not published: %s", len(batch.turns), number, reason)
        telemetry.count(measured.UPDATES_DISCARDED)
        refused = {turn.trace_id: Ineligible(Reason.DISCARDED) for turn in batch.turns}
        fates = self._fates(batch.num_items) | {
            trace_id: _fate(trace_id, turn, self._now()) for trace_id, turn in refused.items()
        }
        self._use(batch.num_items, fates, step=self.state.step + 1)
        self._load_learner()
        self._enter(Phase.COLLECTING)

    # -- the checkpoint

    def _fates(self, num_items: int) -> dict[str, Fate]:
        """Fates of the first items' traces that never train."""
        at = self._now()
        return {
            trace_id: _fate(trace_id, turn, at)
            for item in self._inbox.items[:num_items]
            for trace_id, turn in item.ineligible.items()
        }

    def _use(
        self,
        num_items: int,
        fates: dict[str, Fate],
        save: Save | None = None,
        **changes: object,
    ) -> None:
        """Steps 3 to 8: the first items of the inbox have been used, their traces have these fates."""
        self._log.flush(self._config.log.timeout_s)
        positions = self._inbox.positions_after(num_items)
        self._commit(
            save,
            fates=tuple(fates.values()),
            fated=remember(self.state.fated, fates, MAX_FATED),
            offsets=as_offsets(positions),
            **changes,
        )
        self._inbox.drop(num_items)
        self._finish()
        self._inbox.commit(positions)

    @property
    def _owes(self) -> bool:
        """Whether a version was made that nobody has heard of yet."""
        return self.state.candidate is not None and not self.state.candidate.is_published

    def _finish(self) -> None:
        """Steps 5 to 7: what the checkpoint says is owed."""
        state, candidate = self.state, self.state.candidate
        if self._owes and self._releases.poll(0.0).mode is Mode.FROZEN:
            return
        if candidate and not candidate.is_published:
            publish(candidate, self._policy, self._store, self._log, self._folder / "export")
            candidate = candidate.model_copy(update={"is_published": True})
        fates.tell(self._log, state.fates)
        if state.fates or candidate is not state.candidate:
            self._log.flush(self._config.log.timeout_s)
            self._commit(candidate=candidate, fates=())
            telling.ended(state.fates)

    def _commit(self, save: Save | None = None, **changes: object) -> None:
        self.state = self._checkpoints.commit(self.state.model_copy(update=changes), save)

    # -- telling

    def _enter(self, phase: Phase) -> None:
        self.phase = phases.step(self.phase, phase)

    def _show(self) -> None:
        """How far it is, for whoever asks at `trainer.port`."""
        state = self.state
        self.status = {
            "phase": self.phase.value,
            "turns_collected": self._inbox.num_eligible,
            "turns_needed": self._config.trainer.batch_turns,
            "step": state.step,
            "version": state.base,
            "candidate": state.candidate.version if state.candidate else None,
            "mean_reward": state.mean_reward,
            "mode": self._releases.served.mode.value,
            "release": self._releases.served.last,
        }


def _fate(trace_id: str, turn: Ineligible, at: float) -> Fate:
    return Fate(trace_ids=(trace_id,), kind=turn.fate, reason=turn.told, at=at)


def _tell_fairness(fairness: Fairness) -> None:
    """The bounds that hold for the batch just trained."""
    capped, numbers = fairness.capped, fairness.numbers()
    logger.info(
        "one user has at most %.3f of the batch's weighted advantages (bound %.3f over %d users, %.3f without it), one "
        "tenant %.3f (bound %.3f over %d); %d near duplicates are down-weighted; %.1f of %d turns count in effect",
        capped.user_share,
        capped.user_cap,
        capped.num_users,
        capped.user_share_before,
        capped.tenant_share,
        capped.tenant_cap,
        capped.num_tenants,
        fairness.num_near_duplicates,
        numbers["fair.effective_turns"],
        len(fairness.weights),
    )


def _times_of(used: Sequence[Item]) -> dict[str, float]:
    """When the batch's sessions began and its feedback was given, as metrics of its version.

    The rollout tells how long the feedback took to be served, and `onstream lineage` what a version is made of.
    """
    began, given = [item.opened_at for item in used], [at for item in used for at in item.feedback_at]
    times = {SESSIONS_FROM: min(began), SESSIONS_TO: max(began)}
    if given:
        times |= {FEEDBACK_AT: median(given), FEEDBACK_FROM: min(given), FEEDBACK_TO: max(given)}
    return times
