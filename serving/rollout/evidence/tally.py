"""A trial's e-processes over its sessions: what a look reads, in so many sums however many sessions there are.

Evidence that the candidate is good, E, is of the sessions that began `settle_s` or longer before the newest one. Which
sessions have been scored at some moment may depend on how they went: those that fail may take longer. Ville's
inequality speaks of sessions in the order they began, with none left out, and a session that is not scored `settle_s`
after it began is late. So it is with the check of the split. Evidence of harm, D, is of all sessions: there, an early
alarm is the better error.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush
from typing import Protocol

from infra.config import SCORED, GateConfig
from ingest.records.events import Arm
from serving.rollout.evidence import bets
from serving.rollout.evidence.bets import BETS, SCALE, SPLIT_STAKES, Baseline, Design
from serving.rollout.evidence.caps import Beginnings, Begun
from serving.rollout.evidence.process import Sums
from serving.rollout.evidence.units import Unit

REWARD = "reward"


class Measured:
    """One outcome's processes, and its sums by arm."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.evidence, self.harm = Sums(len(BETS)), Sums(len(BETS))
        self._total, self._num = {True: 0, False: 0}, {True: 0, False: 0}

    def count(self, treated: bool, pi: float, outcome: float, num: int) -> None:
        """Let a unit count, with `num` 1, or no more, with -1: for harm and for the means."""
        factors = bets.harm(self.design, treated, pi, outcome)
        (self.harm.put if num > 0 else self.harm.take)(factors)
        self._total[treated] += num * round(outcome * SCALE)
        self._num[treated] += num

    def settle(self, treated: bool, pi: float, outcome: float, num: int) -> None:
        """Let a unit count for the evidence, or no more."""
        factors = bets.evidence(self.design, treated, pi, outcome)
        (self.evidence.put if num > 0 else self.evidence.take)(factors)

    def mean(self, treated: bool) -> float | None:
        """Over the units that count in one arm."""
        num = self._num[treated]
        return self._total[treated] / SCALE / num if num else None


class Moments:
    """Number, mean and variance of values in [0, 1], which come and go. Sums of integers: nothing drifts."""

    def __init__(self) -> None:
        self.num, self._total, self._squares = 0, 0, 0

    def put(self, value: float, num: int) -> None:
        """Let it count, with `num` 1, or no more, with -1."""
        fixed = round(value * SCALE)
        self.num += num
        self._total += num * fixed
        self._squares += num * fixed * fixed

    @property
    def mean(self) -> float:
        """Of at least one."""
        return self._total / self.num / SCALE

    @property
    def variance_of_mean(self) -> float:
        """Of at least two: the square of the mean's standard error."""
        spread = max(0, self._squares * self.num - self._total**2)
        return spread / SCALE / SCALE / self.num**2 / (self.num - 1)


class Totals(ABC):
    """What a look reads of a trial or a watch, over whatever its units are: `treated` is the arm in question, `control`
    the one beside it. An outcome without a baseline is not measured."""

    noun = "sessions"

    def __init__(self, baselines: Mapping[str, Baseline], config: GateConfig, treated: Arm, control: Arm) -> None:
        self.config, self.baselines, self.treated, self.control = config, dict(baselines), treated, control
        margins = {REWARD: config.margin} | {rail.name: rail.margin for rail in config.guardrails}
        self.measured = {
            name: Measured(Design(baselines[name], margin)) for name, margin in margins.items() if name in baselines
        }
        self.mismatch = Sums(len(SPLIT_STAKES))
        self.lacking: Counter[str] = Counter()  # guardrail -> units that count and have no outcome for it
        self.pis: Counter[float] = Counter()
        self.num = {treated: 0, control: 0}
        self.beginnings = Beginnings(config)

    @property
    @abstractmethod
    def num_excluded(self) -> int:
        """Sessions that were not served by their arm alone."""

    @property
    @abstractmethod
    def num_settled(self) -> int:
        """Units that E is of."""

    @property
    def more(self) -> dict[str, float]:
        """Numbers of this kind of units alone."""
        return {}

    def is_for(self, baselines: Mapping[str, Baseline], config: GateConfig) -> bool:
        return (self.baselines, self.config) == (baselines, config)


class Tally(Totals):
    """All of one trial, or of one watch, by session.

    `sessions` are looked at where they are held: whoever holds them says what `changed`. That costs one unit, and a
    look at the sums costs what came since the last one. It says the same whatever the order in which units come.
    """

    def __init__(
        self,
        sessions: "Sessions",
        baselines: Mapping[str, Baseline],
        config: GateConfig,
        treated: Arm,
        control: Arm,
        since: float = 0.0,
    ) -> None:
        super().__init__(baselines, config, treated, control)
        self.since = since
        self._missing = {rail.name: rail.missing for rail in config.guardrails}
        self._sessions = sessions
        self._counted: set[str] = set()
        self._settled: set[str] = set()
        self._unripe: list[tuple[float, str]] = []
        self._changed: dict[str, Unit | None] = dict.fromkeys(sessions.units)

    @property
    def num_excluded(self) -> int:
        """Sessions that were not served by their arm alone, or began before it was time."""
        return len(self._sessions.units) - len(self.beginnings)

    @property
    def num_settled(self) -> int:
        """Sessions that E is of."""
        return len(self._settled)

    def changed(self, session_id: str, before: Unit | None) -> None:
        """A session came, or was replaced."""
        self._changed.setdefault(session_id, before)

    def look(self) -> "Tally":
        """Itself, once all that changed is in its sums."""
        changed, self._changed = self._changed, {}
        again = {name for name in changed if name in self._counted}
        came, gone = set[Begun](), set[Begun]()
        for name, before in changed.items():
            now = self._sessions.units[name]
            if name in again and before is not None:
                self._count(before, -1)
            had = before.begun if before is not None and self._is_of_it(before) else None
            has = now.begun if self._is_of_it(now) else None
            if had != has:
                gone |= {had} if had else set()
                came |= {has} if has else set()
        entered, left = self.beginnings.settle(came, gone)
        for name in left - again:
            self._count(self._sessions.units[name], -1)
        for name in (entered | again) - left:
            self._count(self._sessions.units[name], 1)
        self._ripen()
        return self

    def _is_of_it(self, unit: Unit) -> bool:
        return unit.is_pure and unit.began_at >= self.since

    def _count(self, unit: Unit, num: int) -> None:
        """Let a unit count, with `num` 1, or no more, with -1."""
        treated, pi = unit.arm is self.treated, self._pi(unit)
        for name, outcome in self._outcomes(unit):
            if outcome is None:
                self.lacking[name] += num
            else:
                self.measured[name].count(treated, pi, outcome, num)
        self.num[unit.arm] += num
        self.pis[pi] += num
        if num > 0:
            self._counted.add(unit.session_id)
            heappush(self._unripe, (unit.began_at, unit.session_id))
        else:
            self._counted.remove(unit.session_id)
            if unit.session_id in self._settled:
                self._settle(unit, -1)

    def _ripen(self) -> None:
        """Units that began `settle_s` before the newest session are evidence from now on."""
        until = self._sessions.newest_at - self.config.settle_s
        while self._unripe and self._unripe[0][0] <= until:
            _, name = heappop(self._unripe)
            if name in self._counted and name not in self._settled:
                self._settle(self._sessions.units[name], 1)

    def _settle(self, unit: Unit, num: int) -> None:
        (self._settled.add if num > 0 else self._settled.remove)(unit.session_id)
        treated, pi = unit.arm is self.treated, self._pi(unit)
        (self.mismatch.put if num > 0 else self.mismatch.take)(bets.mismatch(treated, pi))
        for name, outcome in self._outcomes(unit):
            if outcome is not None:
                self.measured[name].settle(treated, pi, outcome, num)

    def _pi(self, unit: Unit) -> float:
        """The chance that the unit's coin gave it of being treated."""
        return unit.propensity if unit.arm is self.treated else 1.0 - unit.propensity

    def _outcomes(self, unit: Unit) -> Iterator[tuple[str, float | None]]:
        """What a unit counts as; `None` where a guardrail has neither a number nor a declared one."""
        rails = unit.guardrails
        for name in self.measured:
            yield name, value_of(unit, self.config) if name == REWARD else rails.get(name, self._missing[name])


def value_of(unit: Unit, config: GateConfig) -> float:
    """A session's reward; where nothing scored it, what the gate or else the reward spec declares for that."""
    is_missing = config.missing is not None and not unit.guardrails.get(SCORED, 1.0)
    return config.missing if is_missing and config.missing is not None else unit.reward


class Follower(Protocol):
    """Who is told what changes."""

    def changed(self, session_id: str, before: Unit | None) -> None:
        """A session came, or was replaced."""
        ...


class Sessions:
    """The sessions of one trial or watch, each at what counts of it, and the tally over them once somebody looked."""

    def __init__(self, units: Iterable[Unit] = (), newest_at: float = 0.0) -> None:
        self.units = {unit.session_id: unit for unit in units}
        self.newest_at = newest_at
        self.followers: list[Follower] = []
        self._tally: Tally | None = None

    def put(self, unit: Unit) -> None:
        """A session's outcome, unless what is held of it counts instead."""
        self.newest_at = max(self.newest_at, unit.began_at)
        before = self.units.get(unit.session_id)
        if before is not None and not unit.replaces(before):
            return
        self.units[unit.session_id] = unit
        for follower in self.followers:
            follower.changed(unit.session_id, before)

    def tally(
        self, baselines: Mapping[str, Baseline], config: GateConfig, treated: Arm, control: Arm, since: float = 0.0
    ) -> Tally:
        """The sums, up to date. They are computed from all units when first asked for, as after a restart, and when a
        baseline or the configuration has changed."""
        if self._tally is None or not self._tally.is_for(baselines, config) or self._tally.since != since:
            self._tally = Tally(self, baselines, config, treated, control, since)
            self.followers = [self._tally]
        return self._tally.look()

    @property
    def excluded(self) -> set[str]:
        """Sessions that were not served by their arm alone."""
        return {name for name, unit in self.units.items() if not unit.is_pure}
