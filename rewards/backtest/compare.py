"""Old rewards against new ones, one session after the other, keeping numbers only. Pure.

What is compared, each under a name: the sessions' values that somebody's signal made, their guardrails, the turns'
values, and each component's score of each turn. A value that lacks what no engine was asked for is left out on both
sides.
"""

import heapq
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from pydantic import Field

from ingest.records.events import Component, Frozen, Reward, TurnKind, TurnReward
from rewards.backtest.numbers import Distribution, Floats, Ranks, distribution, ranks
from rewards.backtest.rescore import Again

NUM_MOVERS = 20
CHANGED = 1e-9  # less is another way of adding up
_CRASHED = "crashed"  # what a crashed scorer said may quote what it read


class What(StrEnum):
    """Whose value it is."""

    SESSION = "session"
    TURN = "turn"
    COMPONENT = "component"
    GUARDRAIL = "guardrail"


class Shift(Frozen):
    """One quantity, before and after. `old` and `new` tell all values of a side, the rest compares.

    `num_both` have a value on both sides, `num_changed` of them another; `mean_change` is over `num_both`. `gained`
    have a value only now, `lost` had one only before. Components tell `scorers` and `unscored` (reason -> turns),
    sessions and turns `ranks`.
    """

    what: What
    name: str
    old: Distribution | None
    new: Distribution | None
    num_both: int
    num_changed: int
    mean_change: float | None
    gained: int
    lost: int
    ranks: Ranks | None = None
    scorers_old: tuple[str, ...] = ()
    scorers_new: tuple[str, ...] = ()
    unscored_old: dict[str, int] = Field(default_factory=dict)
    unscored_new: dict[str, int] = Field(default_factory=dict)


class Mover(Frozen):
    """A session, or a turn of one where `trace_id` names it, whose value changed much.

    A value is the sum of what its components add to it; `by` is the one whose addend changed most, and `by_change` by
    how much. None where nothing tells.
    """

    session_id: str
    trace_id: str | None
    old: float
    new: float
    by: str | None
    by_change: float


class Comparison(Frozen):
    """Everything that was found. `shifts` are sessions, turns, components as the new spec has them, guardrails.

    `num_not_whole` sessions and `num_turns_lacking` turns have no value for want of engines; `notes` tell of all that
    was left out.
    """

    num_sessions: int
    num_turns: int
    num_not_whole: int
    num_turns_lacking: int
    specs_old: dict[str, int]
    spec_new: str
    shifts: tuple[Shift, ...]
    sessions: tuple[Mover, ...]
    turns: tuple[Mover, ...]
    notes: tuple[str, ...] = ()


class _Pairs:
    """Old and new values of the same things; not a number where there is none."""

    def __init__(self) -> None:
        self._old, self._new = array("d"), array("d")

    def add(self, old: float | None, new: float | None) -> None:
        if old is not None or new is not None:
            self._old.append(math.nan if old is None else old)
            self._new.append(math.nan if new is None else new)

    def shift(self, what: What, name: str, told: "_Told | None" = None, *, is_ranked: bool = False) -> Shift:
        old, new = np.array(self._old, np.float64), np.array(self._new, np.float64)
        has_old, has_new = ~np.isnan(old), ~np.isnan(new)
        both = has_old & has_new
        changes: Floats = new[both] - old[both]
        known = told or _Told()
        return Shift(
            what=what,
            name=name,
            old=distribution(old[has_old]),
            new=distribution(new[has_new]),
            num_both=int(both.sum()),
            num_changed=int((np.abs(changes) > CHANGED).sum()),
            mean_change=float(changes.mean()) if changes.size else None,
            gained=int((~has_old).sum()),
            lost=int((~has_new).sum()),
            ranks=ranks(old[both], new[both]) if is_ranked else None,
            scorers_old=tuple(sorted(known.scorers[0])),
            scorers_new=tuple(sorted(known.scorers[1])),
            unscored_old=dict(known.unscored[0].most_common()),
            unscored_new=dict(known.unscored[1].most_common()),
        )


class _Told:
    """What a component said besides numbers: before, and now."""

    def __init__(self) -> None:
        self.scorers: tuple[set[str], set[str]] = (set(), set())
        self.unscored: tuple[Counter[str], Counter[str]] = (Counter(), Counter())

    def add(self, side: int, component: Component) -> None:
        self.scorers[side].add(component.scorer)
        if component.unscored:
            is_crash = component.unscored.startswith(f"{_CRASHED}:")
            self.unscored[side][_CRASHED if is_crash else component.unscored] += 1


@dataclass(frozen=True)
class _Sum:
    """A value, and what each component adds to it."""

    value: float
    addends: Mapping[str, float]


class _Movers:
    """The `NUM_MOVERS` that moved most; of equals those that came first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Mover]] = []
        self._num = 0

    def add(self, session_id: str, trace_id: str | None, old: _Sum, new: _Sum) -> None:
        distance, self._num = round(abs(new.value - old.value), 12), self._num + 1
        if distance <= CHANGED or (len(self._heap) == NUM_MOVERS and distance <= self._heap[0][0]):
            return
        by, change = _most_changed(old.addends, new.addends)
        mover = Mover(session_id=session_id, trace_id=trace_id, old=old.value, new=new.value, by=by, by_change=change)
        heapq.heappush(self._heap, (distance, -self._num, mover))
        if len(self._heap) > NUM_MOVERS:
            heapq.heappop(self._heap)

    def all(self) -> tuple[Mover, ...]:
        return tuple(mover for _, _, mover in sorted(self._heap, key=lambda one: one[:2], reverse=True))


class Comparing:
    """Takes rewards, and tells what they make together."""

    def __init__(self, spec_new: str, names: Sequence[str]) -> None:
        """`names` are the new spec's components, in its order."""
        self._spec_new, self._specs_old = spec_new, Counter[str]()
        self._num_sessions = self._num_turns = self._num_not_whole = self._num_lacking = 0
        self._sessions, self._turns = _Pairs(), _Pairs()
        self._components: dict[str, _Pairs] = {name: _Pairs() for name in names}
        self._told: dict[str, _Told] = defaultdict(_Told)
        self._guardrails: dict[str, _Pairs] = defaultdict(_Pairs)
        self._moved_sessions, self._moved_turns = _Movers(), _Movers()

    def add(self, old: Again, new: Again) -> None:
        """One trajectory, before and after."""
        self._specs_old[old.reward.spec] += 1
        self._num_sessions += 1
        self._num_turns += len(new.reward.trace_ids)
        self._add_components(old.reward, new.reward)
        for name in sorted({*old.reward.guardrails, *new.reward.guardrails}):
            self._guardrails[name].add(old.reward.guardrails.get(name), new.reward.guardrails.get(name))
        self._add_turns(old.reward, new.reward, old.lacking | new.lacking)
        if not (old.is_whole and new.is_whole):
            self._num_not_whole += 1
            return
        self._sessions.add(*(one.reward.value if one.reward.has_signal else None for one in (old, new)))
        if old.reward.has_signal and new.reward.has_signal:
            self._moved_sessions.add(new.reward.session_id, None, _of_session(old.reward), _of_session(new.reward))

    def _add_components(self, old: Reward, new: Reward) -> None:
        values: dict[tuple[str, str], list[float | None]] = {}
        for side, reward in enumerate((old, new)):
            for component in reward.components:
                values.setdefault((component.name, component.trace_id), [None, None])[side] = component.value
                self._told[component.name].add(side, component)
        for (name, _), pair in values.items():
            self._components.setdefault(name, _Pairs()).add(*pair)

    def _add_turns(self, old: Reward, new: Reward, lacking: frozenset[str]) -> None:
        before = {turn.trace_id: turn for turn in old.turns}
        for after in new.turns:
            was = before.pop(after.trace_id, None)
            if after.trace_id in lacking:
                self._num_lacking += 1
                continue
            self._turns.add(was.value if was else None, after.value)
            if was and was.value is not None and after.value is not None:
                self._moved_turns.add(new.session_id, after.trace_id, _of_turn(was), _of_turn(after))
        for was in before.values():
            self._turns.add(was.value, None)

    def result(self) -> Comparison:
        """Everything so far."""
        shifts = [
            self._sessions.shift(What.SESSION, "sessions", is_ranked=True),
            self._turns.shift(What.TURN, "turns", is_ranked=True),
            *(pairs.shift(What.COMPONENT, name, self._told[name]) for name, pairs in self._components.items()),
            *(pairs.shift(What.GUARDRAIL, name) for name, pairs in sorted(self._guardrails.items())),
        ]
        return Comparison(
            num_sessions=self._num_sessions,
            num_turns=self._num_turns,
            num_not_whole=self._num_not_whole,
            num_turns_lacking=self._num_lacking,
            specs_old=dict(self._specs_old.most_common()),
            spec_new=self._spec_new,
            shifts=tuple(shifts),
            sessions=self._moved_sessions.all(),
            turns=self._moved_turns.all(),
        )


def _of_turn(turn: TurnReward) -> _Sum:
    total = math.fsum(part.weight for part in turn.parts)
    return _Sum(turn.value or 0.0, {part.name: part.weight * part.value / total for part in turn.parts})


def _of_session(reward: Reward) -> _Sum:
    """The session's value is the mean over its main turns that have parts."""
    sums = [_of_turn(turn).addends for turn in reward.turns if turn.kind is TurnKind.MAIN and turn.parts]
    names = sorted({name for one in sums for name in one})
    return _Sum(reward.value, {name: math.fsum(one.get(name, 0.0) for one in sums) / len(sums) for name in names})


def _most_changed(old: Mapping[str, float], new: Mapping[str, float]) -> tuple[str | None, float]:
    changes = {name: new.get(name, 0.0) - old.get(name, 0.0) for name in sorted({*old, *new})}
    return max(changes.items(), key=lambda one: abs(one[1]), default=(None, 0.0))
