"""Rewards read and not yet used, and the positions that go with them.

Rewards are used in the order they were read, so what has been used is a prefix of every partition and a position says
it all: after a kill, reading goes on at the first reward that the checkpoint has not used. What was used in vain is
read again from where its use began (`go_back`).
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

from infra import telemetry
from infra.errors import ErasedError
from ingest.log import topics
from ingest.log.protocol import EventLog, Message, Positions
from ingest.log.reader import Reader, place
from ingest.log.topics import READERS
from ingest.log.trajectories import trajectory_of
from ingest.records.events import SESSION_END, Chain, Group, Headers, Reward, Trajectory
from ingest.sessions.contamination import TaskIndex
from trainer.eligibility import EligibleTurn, Ineligible, Reason, screen
from trainer.hinting import corrected

logger = logging.getLogger(__name__)

_NOBODY: Mapping[str, float] = MappingProxyType({})

GROUP = "trainer"
UNSCORED = Ineligible(Reason.UNSCORED)


@dataclass(frozen=True)
class Item:
    """One reward record: its traces that were new, and the chains, as stored, while any of them may train.

    `owner` is who counts as its user, `context` the trace context that it came with, as headers, `feedback_at` when its
    feedback was given, and `opened_at` when its session began, in Unix seconds. `group` is what the replay lane asked
    its turns for.
    """

    partition: tuple[str, int]
    offset: int
    revision: int
    tenant: str
    spec: str
    at: float
    turns: dict[str, EligibleTurn | Ineligible]
    chains: tuple[Chain, ...]
    owner: str
    context: Headers = field(default_factory=dict)
    feedback_at: tuple[float, ...] = ()
    opened_at: float = 0.0
    group: Group | None = None

    @cached_property
    def eligible(self) -> list[EligibleTurn]:
        return [turn for turn in self.turns.values() if isinstance(turn, EligibleTurn)]

    @property
    def ineligible(self) -> dict[str, Ineligible]:
        return {trace_id: turn for trace_id, turn in self.turns.items() if isinstance(turn, Ineligible)}

    def waiting(self, late_after: float) -> dict[str, float]:
        """Its unscored turns, with the time it was made at, where that was after `late_after`."""
        if self.at <= late_after:
            return {}
        return {trace_id: self.at for trace_id, turn in self.turns.items() if turn == UNSCORED}


class Inbox:
    """The trainer's view of the rewards topic. `done` are traces that have their fate, or are used and will have it: of
    those that have it, the last.

    What comes again, a later revision or what lies before `passed`, was read before: its traces had their say, but for
    two kinds without a fate. `moved` are owed to a later reward: a revision took them over, or their version is gone.
    `waiting`, by when they were rewarded, were passed without a score, which late feedback may still give them.
    `began` is where each partition was first read, ever.
    Text of `tasks` never trains; turns with something redacted only where `trains_altered` says so. Feedback named
    `hinted_by` says of a turn that the next one's prompt corrects it.
    """

    def __init__(
        self,
        log: EventLog,
        positions: Positions,
        done: Iterable[str],
        tasks: TaskIndex | None = None,
        trains_altered: bool = False,
        began: Positions | None = None,
        hinted_by: str = "",
        moved: Iterable[str] = (),
        waiting: Mapping[str, float] = _NOBODY,
        passed: Positions | None = None,
    ) -> None:
        self._log, self._tasks, self._trains_altered = log, tasks, trains_altered
        self._hinted_by = hinted_by
        self._next = dict(positions)
        self._known = set(done)
        self.moved, self.waiting = set(moved), dict(waiting)
        self._passed = dict(passed or {})
        self._read_until: dict[tuple[str, int], float] = {}
        self.began = dict(began or {})
        self._reader: Reader | None = None
        self._assigned: frozenset[tuple[str, int]] = frozenset()
        self.items: list[Item] = []

    @property
    def num_eligible(self) -> int:
        return sum(len(item.eligible) for item in self.items)

    @property
    def oldest_at(self) -> float:
        """When the reward of the first eligible turn was made, in Unix seconds; infinite where there is none."""
        return next((item.at for item in self.items if item.eligible), math.inf)

    def poll(self, timeout_s: float) -> None:
        """Read on. Raises `LogError`."""
        if self._reader is None:
            self._reader = Reader(self._log, READERS[GROUP], GROUP)
        found = self._reader.poll(timeout_s)
        moved = self._seek_new()
        for message, record in found:
            where = (message.topic, message.partition)
            if where in moved or message.offset < self._next.get(where, 0):
                continue
            self.began.setdefault(where, message.offset)
            self._next[where] = message.offset + 1
            if isinstance(record, Reward):
                self._read_until[where] = record.at
                self._keep(message, record)

    def _seek_new(self) -> frozenset[tuple[str, int]]:
        """Go to our own positions in partitions assigned since the last call: the group's are only a hint.

        What this poll brought from them began elsewhere and comes again, or not at all.
        """
        assert self._reader is not None
        assigned = self._reader.subscription.assignment()
        moved = frozenset(where for where in assigned - self._assigned if where in self._next)
        if moved:
            ours = {where: self._next[where] for where in moved}
            self._reader.subscription.seek(ours)
            self._reader.subscription.commit(ours)  # reassigned within a poll it begins at the group's
        self._assigned = assigned
        return moved

    def _keep(self, message: Message, reward: Reward) -> None:
        """Hold a reward. A trace that has its fate keeps it; one that is held goes to the reward's latest revision."""
        if reward.revision > 1:
            self._give_up(reward)
        new = self._new(reward, message)
        if len(new) < len(reward.trace_ids):
            logger.info("%s: skipped traces of a reward that came again", place(message))
        if not new:
            return
        try:
            trajectory = trajectory_of(self._log, reward)
            screened = screen(reward, trajectory, self._tasks, self._trains_altered)
            screened = corrected(screened, trajectory, self._hinted_by)
        except ErasedError:
            trajectory, screened = None, dict.fromkeys(reward.trace_ids, Ineligible(Reason.ERASED))
        turns = {name: turn for name, turn in screened.items() if name in new}
        self._known |= turns.keys()
        for name in self.waiting.keys() & turns.keys():
            del self.waiting[name]
            self.moved.add(name)
        item = Item(
            (message.topic, message.partition),
            message.offset,
            reward.revision,
            reward.tenant,
            reward.spec,
            reward.at,
            turns,
            trajectory.chains if trajectory else (),
            owner_of(reward, trajectory),
            telemetry.context_in(message.headers),
            _feedback_at(trajectory),
            reward.opened_at,
            reward.assignment.group if reward.assignment else None,
        )
        self.items.append(_stripped(item))

    def _new(self, reward: Reward, message: Message) -> set[str]:
        """Its traces that are neither held nor used."""
        new = set(reward.trace_ids) - self._known
        if reward.revision == 1 and message.offset >= self._passed.get((message.topic, message.partition), 0):
            return new
        return {name for name in new if name in self.moved or name in self.waiting}

    def _give_up(self, reward: Reward) -> None:
        """Let go of held traces that an earlier revision brought: `reward` has later feedback about them."""
        names = set(reward.trace_ids)
        for index, item in enumerate(self.items):
            if item.revision < reward.revision and not names.isdisjoint(item.turns):
                self._known -= names & item.turns.keys()
                self.moved |= names & item.turns.keys()
                left = {name: turn for name, turn in item.turns.items() if name not in names}
                self.items[index] = _stripped(replace(item, turns=left))

    def resolve(self, rule_out: Callable[[Item, EligibleTurn], Ineligible | None]) -> None:
        """Give eligible turns that `rule_out` objects to their reason, and let go of tokens that cannot train."""
        for index, item in enumerate(self.items):
            ruled_out = {turn.trace_id: reason for turn in item.eligible if (reason := rule_out(item, turn))}
            if ruled_out:
                self.items[index] = _stripped(replace(item, turns={**item.turns, **ruled_out}))

    def num_items_for(self, num_turns: int) -> int:
        """How many items from the first on hold at least `num_turns` eligible turns."""
        found = 0
        for index, item in enumerate(self.items):
            found += len(item.eligible)
            if found >= num_turns:
                return index + 1
        return len(self.items)

    def num_leading_ineligible(self, before: float = math.inf) -> int:
        """How many items from the first on, of rewards made `before`, in Unix seconds, hold nothing that may train."""
        return next((n for n, item in enumerate(self.items) if item.eligible or item.at >= before), len(self.items))

    def wait(self, waiting: Mapping[str, float]) -> None:
        """These are passed without a score; a later revision may take them over."""
        self.waiting |= waiting
        self._known.difference_update(waiting)

    def stop_waiting(self, late_after: float, most: int) -> tuple[str, ...]:
        """Take out and return the traces that wait since `late_after` or longer, and the oldest beyond the `most`."""
        num = max(len(self.waiting) - most, sum(at <= late_after for at in self.waiting.values()))
        oldest = sorted(self.waiting, key=self.waiting.__getitem__)[:num]
        for name in oldest:
            del self.waiting[name]
        return tuple(oldest)

    def positions_after(self, num_items: int) -> Positions:
        """Where reading goes on once the first `num_items` are used: at the first reward left, or the next unread."""
        positions = dict(self._next)
        for item in reversed(self.items[num_items:]):
            positions[item.partition] = item.offset
        return positions

    def drop(self, num_items: int) -> None:
        """Let go of the first items: a checkpoint has used them."""
        del self.items[:num_items]

    def go_back(self, positions: Positions, again: Iterable[str], passed: Positions) -> None:
        """Read on from `positions`, which lie before all that is held. `again` are traces that may be held once more,
        `passed` where reading had come to before.

        The group is told: after an outage it would begin where it was told last. Raises `LogError`.
        """
        self._known -= {name for item in self.items for name in item.turns}
        self._known.difference_update(again)
        self.moved.update(again)
        self._passed = dict(passed)
        self.items.clear()
        self._next = self.began | dict(positions)
        if self._reader is not None:
            held = self._reader.subscription.assignment()
            self._reader.subscription.seek({where: at for where, at in self._next.items() if where in held})
        self.commit(self._next)

    def num_unread(self) -> int:
        """Rewards on the log behind those that were read, in partitions that were read at all. Raises `LogError`."""
        ends = self._log.ends(topics.REWARDS.name)
        return sum(max(0, ends.get(part, 0) - at) for (_, part), at in self._next.items())

    def read_until(self, now: float) -> float:
        """Until when rewards are known, in Unix seconds: of what lies unread nothing is. Raises `LogError`."""
        ends = self._log.ends(topics.REWARDS.name)
        behind = [where for where, at in self._next.items() if ends.get(where[1], 0) > at]
        return min((self._read_until.get(where, -math.inf) for where in behind), default=now)

    def remember(self, told: Iterable[str], done: Iterable[str]) -> None:
        """Fates were `told`. Of traces that are not held, know those that are `done`, and no others any more."""
        self._known = {*done, *(name for item in self.items for name in item.turns)}
        self.moved.difference_update(told)

    def expire(self, before: float) -> None:
        """Rule out what is in rewards made earlier: after a restart the log might not give them again."""
        self.resolve(lambda item, _turn: Ineligible(Reason.EXPIRED) if item.at < before else None)

    def commit(self, positions: Positions) -> None:
        """Tell the group, for its lag; the truth is in the checkpoint."""
        if self._reader is not None:
            held = self._reader.subscription.assignment()
            self._reader.subscription.commit({where: at for where, at in positions.items() if where in held})

    def close(self) -> None:
        """Leave the group; `poll` joins it again."""
        if self._reader is not None:
            self._reader.close()
        self._reader, self._assigned = None, frozenset()


def owner_of(reward: Reward, trajectory: Trajectory | None) -> str:
    """Who counts as the user of a reward's turns; where none is named, its session, or that whose agent began it."""
    if reward.user:
        return f"user {reward.user}"
    parent = trajectory.parent_session_id if trajectory else None
    return f"session {parent or reward.session_id}"


def _feedback_at(trajectory: Trajectory | None) -> tuple[float, ...]:
    given = trajectory.feedback if trajectory else ()
    return tuple(feedback.at for feedback in given if feedback.name != SESSION_END)


def _stripped(item: Item) -> Item:
    return item if item.eligible else replace(item, chains=())
