"""The controller: it alone writes the release log, and makes engines serve what the log says.

A tick goes: read what is new (versions, rewards, releases), carry out what operators asked for, or else move the trial
or the watch one step if it is ready, then reconcile every engine with the log. A command that comes in ends the wait of
a tick at once. Nothing else is state: a restart replays `releases` from where the candidate's life began, takes the
evidence as it was kept and what `rewards` has beyond it, and stands where the process before it stood. Where nothing
was kept it replays all. A step is written before it is acted on, so a crash in between is made good by reconciling.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from infra import telemetry
from infra.config import RolloutConfig
from infra.lifecycle import Deadline, Pulse
from infra.telemetry import metrics
from ingest.log import topics
from ingest.log.protocol import EventLog
from ingest.records.events import Mode, Reward, TrialState
from ingest.store.releases import Served
from ingest.store.versions import VersionStore
from serving.rollout import evidence, telling
from serving.rollout.commands import Change, Command, Do, Done, Held, Refused, decide
from serving.rollout.desk import Answer, Desk
from serving.rollout.disagreement import Disagreement
from serving.rollout.engines import EngineControl
from serving.rollout.evidence import Standing
from serving.rollout.fleet import Fleet
from serving.rollout.judged import Judged
from serving.rollout.moves import By, Moves
from serving.rollout.placement import changed
from serving.rollout.reading import Reading
from serving.rollout.remembering import recall, remember
from serving.rollout.stages import CheckMaker
from serving.rollout.trials import Trials
from serving.rollout.turning import Turning
from serving.rollout.watch import Watch
from serving.rollout.writing import Writer

_LOOK_S = 0.05  # most of what a command waits for a tick
_KEEP_EVERY_S = 30.0
_NUM_CHAMPIONS = 5  # stable, and those that a rollback may return to


class Rollout:
    """One controller. `now` is Unix time that never jumps, `engines` are its hands, `checks` come before users."""

    def __init__(
        self,
        log: EventLog,
        store: VersionStore,
        engines: Mapping[str, EngineControl],
        config: RolloutConfig,
        evidence_file: Path,
        now: Callable[[], float] = time.time,
        pulse: Pulse | None = None,
        checks: Mapping[TrialState, CheckMaker] | None = None,
        desk: Desk | None = None,
    ) -> None:
        self._store, self._config, self._now = store, config, now
        self._file, self._keep_at = evidence_file, now() + _KEEP_EVERY_S
        self.evidence = evidence.read(evidence_file)
        self.standing: Standing | None = None
        self._is_started = False
        self.desk = desk or Desk()
        self._taught_at: float | None = None  # while a promoted version loads: its feedback's time
        taken = {(topics.REWARDS.name, part): offset for part, offset in self.evidence.positions.items()}
        self._kept_releases = evidence_file.with_name("releases.json")
        before = recall(self._kept_releases, log)
        self._reading = Reading(log, {**taken, **(before.positions if before else {})})
        self._reading.on_reward = self._rewarded
        self._writer = Writer(log, self._reading, now, before.known if before else None)
        pulse = pulse or Pulse()
        self._fleet = Fleet(engines, self._writer, self._reading.contexts, pulse, lambda: self.desk.is_called)
        self._moves = Moves(self._writer, self._fleet, config)
        self._turning = Turning(self._writer, self._fleet, self._moves, config, now)
        judged = Judged(self.evidence, self._writer.blocks, config)
        self._trials = Trials(
            self._writer, self._reading, self._fleet, self._moves, judged, self._turning, store, config, checks or {}
        )
        self._watch = Watch(self._writer, self._reading, self._moves, judged, self._turning, config)

    @property
    def served(self) -> Served:
        """What the log says."""
        return self._writer.served

    @property
    def held(self) -> Mapping[str, frozenset[int]]:
        """What each engine can serve without the store."""
        return self._fleet.held

    @property
    def disagreements(self) -> Mapping[str, Disagreement]:
        """Engines that serve something else than the log gives them."""
        return self._fleet.disagreements

    def start(self) -> None:
        """Replay, then claim the release log with a new epoch.

        Raises:
            UnreleasedError: nothing was ever released.
        """
        telling.observe(self)
        self._writer.claim(self._config.tick_s)
        self._is_started = True

    def tick(self) -> None:
        """Read, decide, reconcile."""
        self._hear()
        before, begun = self.served.stable, self._writer.begun
        if not self.desk.serve(self._carry_out):
            self._step()
        if self._writer.begun is not begun:
            self.standing = None  # it was of another state
        if self.served.state is TrialState.PROMOTED and self.served.stable != before:
            self._taught_at = self._reading.feedback_at.get(self._writer.stable)
        self._reconcile()
        self._turning.open()
        if self._now() >= self._keep_at:
            self._keep()

    # -- reading

    def _hear(self) -> None:
        """Read until something came, an operator calls, or `tick_s` is over."""
        wait = Deadline.after(self._config.tick_s)
        while not self._reading.read(min(_LOOK_S, wait.left_s())) and not self.desk.is_called and not wait.passed():
            pass

    def _rewarded(self, reward: Reward) -> None:
        """A prompt that was asked again is nobody's session: its reward is the running check's alone, or the trainer's
        where the replay lane asked."""
        given = reward.assignment
        if given is None or given.replay_of is None:
            self.evidence.add(reward)
        elif given.is_of_a_check:
            self._trials.checking.take(reward)

    # -- deciding

    def _step(self) -> None:
        """The trial, the watch, or what comes next. Frozen, nothing moves by itself."""
        served, begun = self.served, self._writer.begun
        if served.mode is Mode.FROZEN:
            return
        age_s = self._now() - begun.at if begun is not None else 0.0
        if served.on_trial is not None:
            self.standing = self._trials.step(age_s)
        elif self._watch.is_on:
            self.standing = self._watch.step()
        else:
            self._settle()
            self._trials.begin()

    def _settle(self) -> None:
        """Engines that the configuration gained serve from here on, and those that it lost are named no more."""
        placed = self._moves.placement(self._writer.stable)
        if placed != self.served.engines:
            self._moves.settle(placed, changed(self.served.engines, placed))

    def _carry_out(self, command: Command) -> Answer:
        """Do what an operator asks for, if nothing forbids it. A promotion is decided on what is known by now."""
        if command.do is Do.PROMOTE:
            self._step()
        change = decide(command, self.served, self.standing, Held(self.held, self._store.has))
        if isinstance(change, Refused):
            return change
        self._apply(change, By(command.author, command.reason))
        return Done(release=self.served.last, told=change.told)

    def _apply(self, change: Change, by: By) -> None:
        mode = change.mode
        if change.promotes:
            assert self.standing is not None
            self._trials.promote(self.standing, by)
        if change.ends_trial:
            self._trials.end(TrialState.REJECTED, change.told, {}, by, mode)
        elif mode is not None:
            self._moves.turn(mode, change.told, by, ends_watch=mode is Mode.PINNED and self._watch.is_on)
        if mode is not None:
            self.standing = None  # it is of before
        if change.back_to is not None:
            self._moves.roll_back(change.back_to, change.told, {}, by)

    # -- doing

    def _reconcile(self) -> None:
        """Load what the log says into every engine that serves something else."""
        served, stable = self.served, self._writer.stable
        wanted = {name: served.engines.get(name, stable) for name in self._fleet.engines}
        mine = self._moves.candidates if served.state is TrialState.EVALUATING else frozenset()
        if served.mode is not Mode.OPEN and self._trials.is_live_only:  # nobody would judge what users meet there
            wanted |= dict.fromkeys(mine, stable)
            mine = frozenset()
        given = {name: version for name, version in wanted.items() if name not in mine}  # `mine` the trial loads
        is_urgent = served.state is TrialState.ROLLED_BACK or self._turning.beside is not None
        is_whole = self._fleet.reconcile(given, is_urgent)
        if is_whole and self._taught_at is not None:
            telemetry.record(metrics.FEEDBACK_TO_SERVING, self._now() - self._taught_at)
            self._taught_at = None
        self._fleet.compare(wanted)
        self._fleet.hold(held_ready(served))

    def _keep(self) -> None:
        """Keep the evidence, and what was read of the rewards topic: a restart reads on from there."""
        self._keep_at = self._now() + _KEEP_EVERY_S
        is_judged = self.served.on_trial is not None or self._watch.is_on
        judged = [self.served.candidate] if is_judged and self.served.candidate is not None else []
        self.evidence.forget_all_but(self.served.lineage[-_NUM_CHAMPIONS:], judged)
        positions = self._reading.positions.items()
        self.evidence.positions = {part: offset for (topic, part), offset in positions if topic == topics.REWARDS.name}
        evidence.keep(self.evidence, self._file)
        if self._writer.known is not None:
            remember(self._kept_releases, self._writer.known, self._reading.versions_from(self.served))

    def close(self) -> None:
        self._trials.checking.close()
        if self._is_started:  # else it has not read what is served, and would keep nothing of it
            self._keep()
        self._reading.close()
        self._fleet.close()


def held_ready(served: Served) -> tuple[int, ...]:
    """What every engine keeps at hand: stable, the version before, for a rollback, and one whose promotion may come."""
    may_come = (served.candidate,) if served.state is TrialState.CANARY and served.candidate is not None else ()
    return (*served.lineage[-2:], *may_come)
