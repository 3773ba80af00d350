"""A trial's way from a published version to a verdict, one step a tick.

    published -> evaluating   a child of stable waits, and enough is known of stable
    evaluating -> ...         every candidate engine is drained, loaded the version, and answers
    suites, replay -> ...     the state's check passed
    canary -> promoted        the gate passed on what users did, and an operator where that is asked for

Everything else ends it, and nothing but evidence moves it on. While the mode is not open it does not move on at all;
what speaks against it still counts.
"""

import logging
from collections.abc import Mapping

from infra.config import RolloutConfig
from infra.errors import ControlError, StoreError
from ingest.records.events import Mode, TrialState
from ingest.store.versions import VersionStore
from serving.rollout.checking import Checking, following
from serving.rollout.evidence import REWARD, Baseline, Standing, Verdict, judge, share_at
from serving.rollout.fleet import Fleet
from serving.rollout.judged import Judged
from serving.rollout.moves import By, Moves, thaw
from serving.rollout.placement import changed
from serving.rollout.reading import Reading
from serving.rollout.stages import Check, CheckMaker
from serving.rollout.turning import Turning
from serving.rollout.writing import Writer

logger = logging.getLogger(__name__)


class Trials:
    """The trial that runs, or none. `step` returns how it stands where something was judged."""

    def __init__(
        self,
        writer: Writer,
        reading: Reading,
        fleet: Fleet,
        moves: Moves,
        judged: Judged,
        turning: Turning,
        store: VersionStore,
        config: RolloutConfig,
        checks: Mapping[TrialState, CheckMaker],
    ) -> None:
        self._writer, self._reading, self._fleet, self._moves = writer, reading, fleet, moves
        self._judged, self._turning, self._store, self._config = judged, turning, store, config
        self._checks = {} if self.is_live_only else checks
        self.checking = Checking()

    @property
    def is_live_only(self) -> bool:
        """No engine can be had for a check before users: there is one."""
        return self._turning.is_on and self._config.switchback.live_only

    @property
    def _is_open(self) -> bool:
        return self._writer.served.mode is Mode.OPEN

    # -- before a trial

    def begin(self) -> None:
        """The oldest waiting child of stable takes the candidate engines."""
        served, waiting = self._writer.served, self._reading.waiting
        for number in sorted(waiting):
            if number in served.trials or number in served.lineage:
                del waiting[number]
            elif waiting[number].parent != served.stable:
                self._moves.pass_over(waiting.pop(number))
            elif self._is_open and self._baselines() is not None:
                self._moves.begin(number)
                return

    def _baselines(self) -> dict[str, Baseline] | None:
        return self._judged.baselines(self._writer.stable)

    # -- its steps

    def step(self, age_s: float) -> Standing | None:
        """One step, if it is ready. `age_s` are the seconds since its state began."""
        state = self._writer.served.state
        if state is TrialState.CANARY:
            return self._judge(age_s)
        if state is TrialState.EVALUATING:
            if age_s >= self._config.gate.max_wall_s:
                told = f"version {self._candidate}: its engines did not serve it within {age_s:.0f} s"
                self.end(TrialState.EXPIRED, told, {})
            elif self._is_open and self._holds(self._candidate, age_s):
                told = "; one engine: users are the first to meet it" if self.is_live_only else ""
                self._go_on(f"version {self._candidate} answers on every candidate engine{told}", {})
            return None
        return self._look()

    @property
    def _candidate(self) -> int:
        assert self._writer.served.candidate is not None
        return self._writer.served.candidate

    def _holds(self, candidate: int, age_s: float) -> bool:
        """Load the candidate engines that are drained; whether all of them serve, and answer. A failure rejects."""
        mine = sorted(self._moves.candidates)
        statuses = self._fleet.ask(mine)
        has_time = age_s < self._config.drain_s and not self.is_live_only  # users of the one engine never go away
        due = {name for name, status in statuses.items() if status is not None and status.version != candidate}
        drained = {name for name in due if not (has_time and (status := statuses[name]) and status.in_flight)}
        loads = self._fleet.load(dict.fromkeys(sorted(drained), candidate))
        failures = loads.failures
        is_ready = None not in statuses.values() and loads.is_over and not failures and due == drained
        if is_ready:
            failures = self._fleet.probe(mine)
        for name, exc in failures.items():
            if isinstance(exc, ControlError):
                self.end(TrialState.REJECTED, f"version {candidate} failed its load check: {exc}", {})
                return False
            logger.warning("%s: died while loading version %d: %s", name, candidate, exc)
        return is_ready and not failures

    def _look(self) -> Standing:
        """suites or replay -> the next, or its end."""
        candidate, state = self._candidate, self._writer.served.state
        assert state is not None

        def make() -> Check:
            slots = {name: engine.slot for name, engine in self._fleet.engines.items()}
            mine = [slot for name, slot in slots.items() if name in self._moves.candidates]
            others = [slot for name, slot in slots.items() if name not in self._moves.candidates]
            return self._checks[state](self._store.read(candidate), self._writer.stable, mine, others)

        standing = self.checking.look(candidate, state, make)
        if standing.verdict is Verdict.PASS and self._is_open:
            self._go_on(f"version {candidate} passed its {state}: {standing.reason}", standing.numbers)
            if self._writer.served.state is not state:
                self.checking.close()
        elif standing.verdict is Verdict.REJECT:
            self.end(TrialState.REJECTED, f"version {candidate} is rejected: {standing.reason}", standing.numbers)
        elif standing.verdict is Verdict.EXPIRE:
            self.end(TrialState.EXPIRED, f"version {candidate}: {standing.reason}", standing.numbers)
        return standing

    def _go_on(self, reason: str, numbers: Mapping[str, float]) -> None:
        """To the next state; to users only with what is known of stable."""
        assert self._writer.served.state is not None
        then = following(self._writer.served.state, self._checks)
        if then is not TrialState.CANARY:
            self._moves.check(then, reason, numbers)
            return
        baselines, share = self._baselines(), share_at(0, self._config.gate)
        digest = self._digest()
        if baselines is not None and digest is not None:
            block_s = self._judged.block_s(self._writer.stable)
            shared = self._shared if block_s is None else f"{self._shared} of {block_s:.0f} s"
            told = f"version {self._candidate} gets {share:.0%} of {shared}; the champion's reward is "
            self._moves.to_canary(share, digest, baselines, f"{told}{baselines[REWARD].mean:.3f}; {reason}", block_s)

    def _digest(self) -> str | None:
        """The candidate's; none while the store is away, and then it is asked again."""
        try:
            return self._store.read(self._candidate).digest
        except (StoreError, OSError) as exc:
            logger.warning("version %d waits for the store: %s", self._candidate, exc)
            return None

    def _judge(self, age_s: float) -> Standing:
        """canary -> promoted | rejected | expired, or a step along the ramp."""
        candidate, served, begun = self._candidate, self._writer.served, self._writer.begun
        assert begun is not None
        standing = judge(
            self._judged.trial(candidate, thaw(begun.numbers)),
            trial=1 + list(served.trials).index(candidate),
            promotions=len(served.promoted),
            wall_s=age_s,
        )
        if self._turning.is_on and (refusal := self._fleet.refused.get(candidate)):
            told = f"version {candidate} could not be served in its block: {refusal}"
            self.end(TrialState.REJECTED, told, standing.numbers)
        elif standing.verdict is Verdict.PASS:
            if self._is_open and not self._config.approval:
                self.promote(standing)
            else:
                self._turning.go_on()
        elif standing.verdict is Verdict.REJECT:
            self.end(TrialState.REJECTED, standing.reason, standing.numbers)
        elif standing.verdict is Verdict.EXPIRE:
            self.end(TrialState.EXPIRED, standing.reason, standing.numbers)
        else:
            self._ramp(standing)
        return standing

    @property
    def _shared(self) -> str:
        return "blocks" if self._turning.is_on else "sessions"

    def _ramp(self, standing: Standing) -> None:
        """Along the ramp, and to the engines that there are now."""
        candidate, served = self._candidate, self._writer.served
        share = share_at(standing.num_units, self._config.gate) if self._is_open else served.share
        if self._turning.is_on:
            self._turning.go_on(share, standing)
            return
        placed = self._moves.placement(self._writer.stable, candidate)
        if share == served.share and placed == served.engines:
            return
        reason = f"version {candidate} gets {share:.0%} of sessions"
        if placed != served.engines:
            reason += f"; {changed(served.engines, placed)}"
        self._moves.ramp(share, placed, reason, standing.numbers)

    # -- its end, by evidence or by an operator

    def promote(self, standing: Standing, by: By | None = None) -> None:
        """canary -> promoted, on evidence that passed."""
        begun = self._writer.begun
        assert begun is not None
        self._moves.promote(standing.reason, standing.numbers, thaw(begun.numbers), by)

    def end(
        self,
        then: TrialState,
        reason: str,
        numbers: Mapping[str, float],
        by: By | None = None,
        mode: Mode | None = None,
    ) -> None:
        """To rejected or expired."""
        self.checking.close()
        self._moves.end(then, reason, numbers, by, mode)
