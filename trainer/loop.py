"""The trainer's stage: rewarded turns become versions, one after the other, and what their trials decide follows.

Between two promotions every eligible turn trains once. A step trains `trainer.batch_turns` turns and adds them to the
version in the making, which goes on from the candidate while that is on trial (`trainer.steps`, `trainer.making`).
When nothing is on trial and what is there has been taken, it is published as a child of stable. What a decision does
with what was used meanwhile is in `trainer.decisions`, and in which order all is made durable in `trainer.keeping`.

While the release log says that everything is frozen no step is begun, and nothing is published.
"""

import logging
import time
from collections.abc import Callable, Mapping

from infra import telemetry
from infra.config import Config
from infra.lifecycle import Stop
from infra.telemetry import metrics as measured
from ingest.log.protocol import EventLog
from ingest.records.events import Mode
from ingest.sessions.contamination import TaskIndex
from ingest.store.releases import Decision, ReleaseFollower, Served
from ingest.store.versions import VersionStore
from trainer import decisions, phases, telling
from trainer.decisions import Clock
from trainer.keeping import Keeper
from trainer.learner.update import Policy
from trainer.making import Closed, candidate_of, closed
from trainer.phases import Phase
from trainer.settings import learning_settings
from trainer.state import CandidateVersion, State
from trainer.steps import Stepper

logger = logging.getLogger(__name__)

POLL_S = 0.5
SETTLE_S = 30.0
MAX_ITEMS_HELD = 4096
"""Rewards read, with or without turns that may train, while no step is taken; the rest waits on the log."""
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
        self._config, self._own, self._store, self._stop, self._now = config, config.trainer, store, stop, now
        self._keeper = Keeper(config, log, store, policy, now, tasks)
        self._inbox = self._keeper.inbox
        self._steps = Stepper(self._keeper, policy, config.trainer, now)
        self.phase = Phase.WAITING
        known = self._keeper.known
        self._releases = ReleaseFollower(log, known=known if known and known.is_of(log) else None)
        self._settle_at = now() + SETTLE_S
        self.status: Mapping[str, object] = {"phase": self.phase.value}
        telemetry.observe(measured.TURNS_COLLECTED, lambda: self._inbox.num_eligible)
        telemetry.observe(measured.TURNS_IN_MAKING, lambda: self._num_in_making)
        telemetry.observe(measured.RELEASE_LAST, lambda: self._releases.served.last)
        telemetry.observe(measured.TRAINER_PHASE, lambda: telling.phases(self.phase))

    @property
    def state(self) -> State:
        """The checkpoint in force."""
        return self._keeper.state

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
        self._keeper.bring_learner()
        served = self._releases.catch_up()
        self._keeper.tell()
        self._publish_owed(served)
        self._follow(served)
        self._show()

    def tick(self) -> None:
        """Follow the release log, read, take a step when there are turns for one, and publish when it is time."""
        self._keeper.settle_if_ready()
        served = self._releases.poll(0.0)
        self._keeper.known = self._releases.known
        self._follow(served)
        self._publish_owed(self._releases.served)
        if not self._can_step:
            self._read()
        if self._can_step:
            self._step()
        self._publish()
        if self._now() >= self._settle_at:
            self._settle()
        self._show()

    # -- reading

    def _read(self) -> None:
        """Poll, or wait outside the group while the inbox is full: a member that does not poll would be expelled."""
        is_long = len(self._inbox.items) >= MAX_ITEMS_HELD and not self._may_step(self._releases.served)
        if self._is_full or is_long:
            self._inbox.expire(self._clock.log_keeps_from)  # what lies behind is read before the log lets go of it
            self._inbox.close()
            self._stop.wait(POLL_S)
        else:
            self._inbox.poll(POLL_S)

    @property
    def _is_full(self) -> bool:
        return self._inbox.num_eligible >= self._own.batch_turns

    def _settle(self) -> None:
        """Give fates to the rewards at the head of the inbox in which nothing can train.

        What the log may not give again cannot be taken again either: no decision is waited for.
        """
        self._settle_at, keeps_from = self._now() + SETTLE_S, self._clock.log_keeps_from
        self._inbox.expire(keeps_from)
        num_old = self._inbox.num_leading_ineligible(keeps_from)
        if num_old:
            self._steps.let_go(self._inbox.items[:num_old], is_decided=True)
        self._steps.stop_waiting(keeps_from)
        num_items = self._inbox.num_leading_ineligible()
        if num_items and self._closed is not Closed.TURNS:
            self._steps.let_go(self._inbox.items[:num_items])

    @property
    def _clock(self) -> Clock:
        return Clock(self._now(), self._now() - EXPIRE_AT_SHARE * self._config.log.retention_s)

    # -- the release log

    def _follow(self, served: Served) -> None:
        """Take the decision on the candidate, and stand on the stable version."""
        candidate = self.state.candidate
        if candidate:
            decision = served.decision(candidate.version)
            if decision is Decision.UNDECIDED:
                return
            self._decided(candidate, decision)
        if served.stable is not None and served.stable != self.state.base:
            logger.info("stands on version %d, the stable one, from the store", served.stable)
            self._keeper.go_back(decisions.left(self.state, served.stable, self._clock), telling.Again.STABLE)

    def _decided(self, candidate: CandidateVersion, decision: Decision) -> None:
        if decision is Decision.PROMOTED:
            logger.info("version %d was promoted: training goes on from it", candidate.version)
            self._keeper.go_on(decisions.promoted(self.state, self._clock))
            return
        logger.info("version %d is %s: back to version %d", candidate.version, decision.value, candidate.parent)
        if decision is Decision.EXPIRED:
            self._keeper.go_back(decisions.expired(self.state, self._clock), telling.Again.EXPIRED)
        else:
            self._keeper.go_back(decisions.rejected(self.state, self._clock), telling.Again.REJECTED)

    def _latest(self) -> Served:
        """The release log as it is now, followed."""
        served = self._releases.catch_up()
        self._follow(served)
        return served

    # -- a step

    @property
    def _can_step(self) -> bool:
        return self._has_batch and self._may_step(self._releases.served)

    @property
    def _has_batch(self) -> bool:
        """Whether the inbox holds an update's turns: a batch, or fewer that have waited long and are all there are."""
        if self._is_full:
            return True
        is_old = self._now() - self._inbox.oldest_at >= self._own.max_batch_age_s
        is_some = is_old and self._inbox.num_eligible >= self._own.minibatch_turns
        return is_some and self._inbox.num_eligible + self._inbox.num_unread() < self._own.batch_turns

    def _may_step(self, served: Served) -> bool:
        """Whether turns may train now: for a version that takes some, and knowing whose weights sampled them."""
        is_known = served.on_trial is None or served.on_trial == self._candidate
        is_asked = self._own.train_during_trials or not self._is_on_trial(served)
        is_served = self.state.base is not None and served.mode is not Mode.FROZEN and not self._keeper.owes
        return is_known and is_asked and is_served and self._closed is None

    def _step(self) -> None:
        served = self._latest()
        self._steps.rule_out(served)
        if not self._has_batch or not self._may_step(served):
            return
        self._enter(self._resting())
        self._enter(Phase.UPDATING)
        self._show()
        self._steps.step(served, self._next_number())
        self._enter(self._resting())
        if self._is_full:  # the next step begins at once: two may take longer than a group waits for a member to poll
            self._inbox.close()

    @property
    def _candidate(self) -> int | None:
        return self.state.candidate.version if self.state.candidate else None

    def _is_on_trial(self, served: Served) -> bool:
        """Whether some version is, or waits for it."""
        return self._candidate is not None or served.on_trial is not None

    @property
    def _closed(self) -> Closed | None:
        making = self.state.making
        return closed(making, self._own, self._now()) if making else None

    @property
    def _num_in_making(self) -> int:
        return self.state.making.num_turns if self.state.making else 0

    # -- a version

    def _publish(self) -> None:
        """The version in the making, where nothing is on trial and it has what it can have now."""
        if not self._is_ready(self._releases.served) or not self._is_ready(self._latest()):
            return
        state, number = self.state, self._next_number()
        assert state.making is not None and state.base is not None
        made_with = learning_settings(self._own)
        candidate = candidate_of(state.making, number, state.base, state.standing, self._now(), made_with)
        self._keeper.make(candidate)
        self._publish_owed(self._releases.served)
        logger.info(
            "version %d, a child of %d, holds %d turns of %d updates",
            number,
            candidate.parent,
            state.making.num_turns,
            state.making.num_updates,
        )

    def _is_ready(self, served: Served) -> bool:
        if not self._num_in_making or served.mode is Mode.FROZEN or self._is_on_trial(served):
            return False
        if self._closed is not None:
            return True
        if self._num_in_making < self._own.min_version_turns or self._is_full:
            return False
        return self._inbox.num_eligible + self._inbox.num_unread() < self._own.batch_turns

    def _publish_owed(self, served: Served) -> None:
        if self._keeper.owes and served.mode is not Mode.FROZEN:
            self._keeper.publish()

    def _next_number(self) -> int:
        return 1 + max(self._store.versions(), default=-1)

    # -- telling

    def _enter(self, phase: Phase) -> None:
        if phase is not self.phase:
            self.phase = phases.step(self.phase, phase)

    def _resting(self) -> Phase:
        """What it does between steps."""
        if self.state.base is None:
            return Phase.WAITING
        served = self._releases.served
        waits = self._is_on_trial(served) and served.mode is not Mode.FROZEN and not self._may_step(served)
        return Phase.TRIAL if waits else Phase.COLLECTING

    def _show(self) -> None:
        """How far it is, for whoever asks at `trainer.port`."""
        state = self.state
        if self.phase is not Phase.UPDATING:
            self._enter(self._resting())
        self.status = {
            "phase": self.phase.value,
            "turns_collected": self._inbox.num_eligible,
            "turns_needed": self._own.batch_turns,
            "turns_in_making": self._num_in_making,
            "closed": self._closed.value if self._closed else None,
            "step": state.step,
            "version": state.base,
            "candidate": self._candidate,
            "mean_reward": state.mean_reward,
            "mode": self._releases.served.mode.value,
            "release": self._releases.served.last,
        }
