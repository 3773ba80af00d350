"""The controller: it alone writes the release log, and makes engines serve what the log says.

A tick goes: read what is new (versions, rewards, releases), move the trial one step along `trial.ALLOWED` if it is
ready, then reconcile every engine with the log. Nothing else is state: a restart replays `releases`, takes the evidence
as it was kept and what `rewards` has beyond it, and stands where the process before it stood. A step is written before
it is acted on, so a crash in between is made good by reconciling.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from infra import telemetry
from infra.config import RolloutConfig
from infra.errors import ControlError, OnstreamError
from infra.lifecycle import Pulse
from infra.telemetry import metrics, names
from ingest.log import reader, topics
from ingest.log.protocol import EventLog
from ingest.records.events import FEEDBACK_AT, Headers, Release, ReleaseKind, Reward, TrialState, Version
from ingest.store import releases
from ingest.store.releases import Served
from ingest.store.versions import VersionStore
from serving.rollout import evidence, telling, trial
from serving.rollout.engines import EngineControl, EngineStatus
from serving.rollout.evidence import REWARD, Baseline, Standing, Verdict
from serving.rollout.placement.split import place

logger = logging.getLogger(__name__)

_FLUSH_S = 30.0
_KEEP_EVERY_S = 30.0
_NUM_CHAMPIONS = 5  # stable, and those that a rollback may return to
_ASKED_AT_ONCE = 64
_SWAPPED_AT_ONCE = 1 / 16  # of the engines: a promotion takes as long with a thousand as with sixteen

Failure = ControlError | httpx.TransportError


class FencedError(OnstreamError, RuntimeError):
    """Another rollout process took over the release log."""


def _changed(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Which engines came and went, for a release's reason."""
    came, went = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    told = [f"engines that joined: {', '.join(came)}"] if came else []
    told += [f"engines that left: {', '.join(went)}"] if went else []
    return "; ".join(told) or "engines changed places"


def freeze(baselines: Mapping[str, Baseline]) -> dict[str, float]:
    """Baselines as a release's numbers."""
    return {
        f"champion.{name}.{part}": getattr(baseline, part)
        for name, baseline in baselines.items()
        for part in ("mean", "variance")
    }


def thaw(numbers: Mapping[str, float]) -> dict[str, Baseline]:
    """Baselines from a release's numbers."""
    names = {key.split(".")[1] for key in numbers if key.startswith("champion.")}
    return {name: Baseline(numbers[f"champion.{name}.mean"], numbers[f"champion.{name}.variance"]) for name in names}


def _about(release: Release) -> names.Told:
    """A release, as its span tells it."""
    about: names.Told = {names.RELEASE: release.release, names.RELEASE_KIND: release.kind.value}
    if release.candidate is not None and release.state is not None:
        about |= {names.VERSION: release.candidate, names.STATE: release.state.value}
    return about


class Rollout:
    """One controller. `now` is Unix time; `engines` are its hands."""

    def __init__(
        self,
        log: EventLog,
        store: VersionStore,
        engines: Mapping[str, EngineControl],
        config: RolloutConfig,
        evidence_file: Path,
        now: Callable[[], float] = time.time,
        pulse: Pulse | None = None,
    ) -> None:
        self._pulse = pulse or Pulse()
        self._log, self._store, self._engines, self._config, self._now = log, store, engines, config, now
        self.served = Served()
        self.standing: Standing | None = None
        self._file = evidence_file
        self.evidence = evidence.read(evidence_file)
        self._keep_at = now() + _KEEP_EVERY_S
        self._begun: Release | None = None  # the canary's first release: frozen baselines, start of its clock
        self._evaluating_since = 0.0
        self._waiting: dict[int, Version] = {}
        self._contexts: dict[int, Headers] = {}  # of versions: the trace context that each was published in
        self._feedback_at: dict[int, float] = {}  # of versions: when the feedback that each learnt from was given
        self._taught_at: float | None = None  # while a promoted version loads: its `_feedback_at`
        self._epoch = 0  # of this writer; none before it claimed one
        self._pool = ThreadPoolExecutor(_ASKED_AT_ONCE, "engines")
        taken = {(topics.REWARDS.name, part): offset for part, offset in self.evidence.positions.items()}
        self._follower = reader.Follower(log, (topics.VERSIONS, topics.REWARDS, topics.RELEASES), taken)

    def start(self) -> None:
        """Replay, then claim the release log with a new epoch.

        Raises:
            ControlError: nothing was ever released.
        """
        head = releases.read(self._log)
        if head.stable is None:
            raise ControlError("rollout: nothing was ever released; run `onstream bootstrap` first")
        telling.observe(self)
        while (self.served.epoch, self.served.last) < (head.epoch, head.last):
            self._read(timeout_s=self._config.tick_s)
        self._epoch = self.served.epoch + 1
        self._release(ReleaseKind.CLAIM, f"the rollout controller started, epoch {self._epoch}")

    def tick(self) -> None:
        """Read, decide, reconcile."""
        self._read(timeout_s=self._config.tick_s)
        if self.served.state is TrialState.EVALUATING:
            self._evaluate()
        elif self.served.state is TrialState.CANARY:
            self._judge()
        else:
            self._settle_engines()
            self._begin()
        self._reconcile()
        if self._now() >= self._keep_at:
            self._keep()

    # -- reading

    def _read(self, timeout_s: float) -> int:
        records = self._follower.read(timeout_s)
        for record, headers in records:
            if isinstance(record, Reward):
                self.evidence.add(record)
            elif isinstance(record, Version):
                self._waiting[record.version] = record
                self._contexts[record.version] = telemetry.context_in(headers)
                if FEEDBACK_AT in record.metrics:
                    self._feedback_at[record.version] = record.metrics[FEEDBACK_AT]
            elif isinstance(record, Release):
                if self._epoch and record.epoch > self._epoch:
                    raise FencedError(f"epoch {record.epoch} writes releases now; this process had {self._epoch}")
                self._apply(record)
        return len(records)

    def _apply(self, release: Release) -> None:
        before = self.served
        self.served = releases.advance(before, release)
        if self.served is before:
            return
        if release.state is TrialState.CANARY and before.state is not TrialState.CANARY:
            self._begun = release
        if release.state is TrialState.EVALUATING:
            self._evaluating_since = release.at

    # -- the trial

    def _settle_engines(self) -> None:
        """Engines that the configuration gained serve from here on, and those that it lost are named no more."""
        placed = self._placement(None)
        if placed != self.served.engines:
            self._release(ReleaseKind.BOOTSTRAP, _changed(self.served.engines, placed), engines=placed)

    def _begin(self) -> None:
        """published -> evaluating: the oldest waiting child of stable takes the candidate engines."""
        for number in sorted(self._waiting):
            version = self._waiting[number]
            if number in self.served.trials or number in self.served.lineage:
                del self._waiting[number]
            elif version.parent != self.served.stable:
                del self._waiting[number]
                self._move(
                    TrialState.PUBLISHED,
                    TrialState.EXPIRED,
                    f"version {number} descends from {version.parent}, but {self.served.stable} is stable",
                    candidate=number,
                    engines=self.served.engines,
                )
            elif self.evidence.baselines(self._stable, self._config.gate) is not None:
                self._move(
                    TrialState.PUBLISHED,
                    TrialState.EVALUATING,
                    f"version {number} takes the candidate engines",
                    candidate=number,
                    engines=self._placement(number),
                )
                return

    @property
    def _stable(self) -> int:
        assert self.served.stable is not None
        return self.served.stable

    def _placement(self, candidate: int | None) -> dict[str, int]:
        """Engine -> version for a trial of `candidate`, or for none."""
        placed = place((engine.slot for engine in self._engines.values()), self._stable, self._config)
        if candidate is not None:
            placed |= {name: candidate for name, engine in self._engines.items() if engine.slot.arm == "candidate"}
        return placed

    def _evaluate(self) -> None:
        """evaluating -> canary once every candidate engine is drained, loaded and answers; else rejected."""
        candidate = self.served.candidate
        assert candidate is not None
        if not self._holds(candidate):
            return
        baselines = self.evidence.baselines(self._stable, self._config.gate)
        if baselines is None:
            return
        share = evidence.share_at(0, self._config.gate)
        self._move(
            TrialState.EVALUATING,
            TrialState.CANARY,
            f"version {candidate} gets {share:.0%} of sessions; the champion's reward is {baselines[REWARD].mean:.3f}",
            candidate=candidate,
            engines=self.served.engines,
            share=share,
            salt=self._store.read(candidate).digest,
            numbers=freeze(baselines),
        )

    def _holds(self, candidate: int) -> bool:
        """Load the candidate engines that are drained; whether all of them serve, and answer. A failure rejects."""
        mine = [name for name, engine in self._engines.items() if engine.slot.arm == "candidate"]
        statuses = self._ask(mine)
        has_time = self._now() - self._evaluating_since < self._config.drain_s
        due = {name for name, status in statuses.items() if status is not None and status.version != candidate}
        drained = {name for name in due if not (has_time and (status := statuses[name]) and status.in_flight)}
        failures = self._load(dict.fromkeys(sorted(drained), candidate))
        is_ready = None not in statuses.values() and not failures and due == drained
        if is_ready:
            failures = {name: exc for name, exc in zip(mine, self._pool.map(self._probed, mine), strict=True) if exc}
        for name, exc in failures.items():
            if isinstance(exc, ControlError):
                self._reject(f"version {candidate} failed its load check: {exc}", {})
                return False
            logger.warning("%s: died while loading version %d: %s", name, candidate, exc)
        return is_ready and not failures

    def _judge(self) -> None:
        """canary -> promoted | rejected | expired, or a step along the ramp."""
        candidate = self.served.candidate
        assert candidate is not None and self._begun is not None
        standing = evidence.judge(
            self.evidence.trial(candidate, thaw(self._begun.numbers), self._config.gate),
            trial=1 + list(self.served.trials).index(candidate),
            promotions=len(self.served.promoted),
            wall_s=self._now() - self._begun.at,
        )
        self.standing = standing
        if standing.verdict is Verdict.PASS:
            self._promote(candidate, standing)
        elif standing.verdict is Verdict.REJECT:
            self._reject(standing.reason, standing.numbers)
        elif standing.verdict is Verdict.EXPIRE:
            self._reject(standing.reason, standing.numbers, TrialState.EXPIRED)
        else:
            self._step(candidate, standing)

    def _step(self, candidate: int, standing: Standing) -> None:
        """Along the ramp, and to the engines that there are now."""
        share, placed = evidence.share_at(standing.num_units, self._config.gate), self._placement(candidate)
        if share == self.served.share and placed == self.served.engines:
            return
        reason = f"version {candidate} gets {share:.0%} of sessions"
        if placed != self.served.engines:
            reason += f"; {_changed(self.served.engines, placed)}"
        self._move(
            TrialState.CANARY,
            TrialState.CANARY,
            reason,
            candidate=candidate,
            engines=placed,
            share=share,
            salt=self.served.salt,
            numbers=standing.numbers,
        )

    def _promote(self, candidate: int, standing: Standing) -> None:
        self._move(
            TrialState.CANARY,
            TrialState.PROMOTED,
            f"version {candidate} is promoted: {standing.reason}",
            candidate=candidate,
            stable=candidate,
            engines=place((engine.slot for engine in self._engines.values()), candidate, self._config),
            numbers=standing.numbers,
        )
        self._taught_at = self._feedback_at.get(candidate)

    def _reject(self, reason: str, numbers: Mapping[str, float], state: TrialState = TrialState.REJECTED) -> None:
        now = self.served.state
        assert now is not None
        self._move(now, state, reason, candidate=self.served.candidate, engines=self._placement(None), numbers=numbers)

    def _move(self, now: TrialState, then: TrialState, reason: str, **what: object) -> None:
        self._release(ReleaseKind.TRIAL, reason, state=trial.step(now, then), **what)
        telemetry.count(metrics.RELEASES, 1, {names.STATE: then.value})

    # -- writing and doing

    def _release(self, kind: ReleaseKind, reason: str, **what: object) -> Release:
        fields: dict[str, object] = {"epoch": self._epoch, "stable": self._stable, **what}
        release = Release.model_validate(
            {"release": self.served.last + 1, "kind": kind, "reason": reason, "at": self._now(), **fields}
        )
        with telemetry.span(names.DECIDE, _about(release), parent=self._context_of(release)):
            reader.send(self._log, topics.RELEASES, "", release)
            self._log.flush(_FLUSH_S)
        self._apply(release)
        logger.info("release %d: %s", release.release, reason)
        return release

    def _reconcile(self) -> None:
        """Load what the log says into every engine that serves something else, some at a time."""
        is_evaluating = self.served.state is TrialState.EVALUATING
        asked = [name for name, one in self._engines.items() if not (is_evaluating and one.slot.arm == "candidate")]
        found = self._ask(asked)
        due = {
            name: wanted
            for name, status in found.items()
            if status is not None and status.version != (wanted := self.served.engines.get(name, self._stable))
        }
        is_whole = all(status is not None for status in found.values())
        left, at_once = list(due), max(1, int(_SWAPPED_AT_ONCE * len(self._engines)))
        for begin in range(0, len(left), at_once):
            failures = self._load({name: due[name] for name in left[begin : begin + at_once]})
            is_whole = is_whole and not failures
            for name, exc in failures.items():
                logger.error("%s: version %d not loaded, trying again: %s", name, due[name], exc)
        if is_whole and self._taught_at is not None:
            telemetry.record(metrics.FEEDBACK_TO_SERVING, self._now() - self._taught_at)
            self._taught_at = None

    def _ask(self, asked: Sequence[str]) -> dict[str, EngineStatus | None]:
        return dict(zip(asked, self._pool.map(lambda name: self._engines[name].status(), asked), strict=True))

    def _load(self, wanted: Mapping[str, int]) -> dict[str, Failure]:
        """Swap engines to these versions at once, and announce those that serve theirs. Why the others do not."""
        answers = dict(zip(wanted, self._pool.map(self._loaded, wanted.items()), strict=True))
        failures = {name: answer for name, answer in answers.items() if not isinstance(answer, Mapping)}
        took = [answer for answer in answers.values() if isinstance(answer, Mapping)]
        done = {name: version for name, version in wanted.items() if name not in failures}
        if done:
            most = {name: max(one[name] for one in took) for name in took[0]}
            who = next(iter(done)) + (f" and {len(done) - 1} more" if len(done) > 1 else "")
            versions = ", ".join(map(str, sorted(set(done.values()))))
            told = f"{who}: version {versions} is served after a pause of at most {most['pause_s'] * 1000:.0f} ms"
            self._release(ReleaseKind.ANNOUNCED, told, engines=done, numbers=most)
        return failures

    def _loaded(self, wanted: tuple[str, int]) -> Mapping[str, float] | Failure:
        name, version = wanted
        about: names.Told = {names.VERSION: version, names.ENGINE: name}
        try:
            with telemetry.span(names.LOAD, about, parent=self._contexts.get(version)):
                return self._engines[name].load(version)
        except (ControlError, httpx.TransportError) as exc:
            return exc
        finally:
            self._pulse.go_on()

    def _probed(self, name: str) -> Failure | None:
        try:
            self._engines[name].probe()
        except (ControlError, httpx.TransportError) as exc:
            return exc
        return None

    def _context_of(self, release: Release) -> Headers | None:
        """The trace of the version that a release is about; inside a span, that."""
        about = set(release.engines.values()) if release.kind is ReleaseKind.ANNOUNCED else {release.candidate}
        version = about.pop() if len(about) == 1 else None
        if version is None or telemetry.current().is_recording():
            return None
        return self._contexts.get(version)

    def _keep(self) -> None:
        """Keep the evidence, and what was read of the rewards topic: a restart reads on from there."""
        self._keep_at = self._now() + _KEEP_EVERY_S
        on_trial = [number for number in (self.served.on_trial,) if number is not None]
        self.evidence.forget_all_but(self.served.lineage[-_NUM_CHAMPIONS:], on_trial)
        positions = self._follower.positions.items()
        self.evidence.positions = {part: offset for (topic, part), offset in positions if topic == topics.REWARDS.name}
        evidence.keep(self.evidence, self._file)

    def close(self) -> None:
        self._keep()
        self._follower.close()
        self._pool.shutdown()
        for engine in self._engines.values():
            engine.close()
