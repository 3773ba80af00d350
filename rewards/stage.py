"""The rewards stage: trajectories in, rewards out.

The commit order:

    1. read    trajectories are polled, undecodable ones go to the dead-letter topic; fast scorers are heard at once,
               batch scorers are asked behind the stage's back (`rewards.asking`)
    2. write   every trajectory that lacks no answer any more gets its reward, appended to `rewards` and keyed by
               session key; the traces of one that is too large for the log get their fate here
    3. flush   rewards and dead letters are durable
    4. index   the ids of those rewards are noted on this machine's disk
    5. commit  each partition's position moves to its low watermark: the smallest offset of any trajectory that still
               waits for an answer, else the next offset

The only database is a copy: `ingest.log.index` holds the ids that `rewards` holds. After a crash the trajectories that
waited are read and asked about again; those that the index knows to have a reward under this spec are skipped:

    between 1 and 2   nothing was said; read and asked again
    between 2 and 3   rewards that arrived are copied into the index, the rest are made again, with the same ids
    between 3 and 5   rewards are in the index by then, their trajectories skipped; what waited is read again

A trajectory waits for its own questions only. At most `rewards.max_waiting` wait, and none for longer than
`rewards.max_wait_s`: beyond that the oldest gets its reward with `Unscored` for what it lacks, so a scorer that cannot
keep up costs scores and never memory.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import fmean

from infra import telemetry
from infra.config import Config
from infra.errors import RecordError
from infra.lifecycle import Stop
from infra.telemetry import metrics, names
from ingest.log import fates
from ingest.log.index import Index, index_path
from ingest.log.protocol import EventLog, Message, Receipt
from ingest.log.reader import Erased, Reader, place, send
from ingest.log.topics import READERS, REWARDS, TRAJECTORIES
from ingest.records.events import Component, Headers, Reward, Source, Trajectory, session_key
from rewards import telling
from rewards.asking import Asking
from rewards.evaluate import Key, Question, ask, reward, reward_id
from rewards.scorers import Outcome, Unscored
from rewards.spec import Scoring

logger = logging.getLogger(__name__)

GROUP = "rewards"
POLL_S = 0.5
TOO_MANY, TOO_LONG = Unscored("too many wait"), Unscored("it waited too long")

Where = tuple[str, int]
"""(topic, partition)."""


@dataclass
class _Waiting:
    """A trajectory without its reward, where it was read, and what it still lacks."""

    trajectory: Trajectory
    headers: Headers
    where: Where
    offset: int
    since: float
    outcomes: dict[Key, Outcome]
    lacks: set[Question] = field(default_factory=set)


class Stage:
    """Scores what it reads. Build a new one after any `LogError`: that is a restart."""

    def __init__(
        self,
        log: EventLog,
        config: Config,
        scoring: Scoring,
        asking: Asking,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log, self._scoring, self._asking, self._clock = log, scoring, asking, clock
        self._timeout_s = config.log.timeout_s
        self._max_waiting, self._max_wait_s = config.rewards.max_waiting, config.rewards.max_wait_s
        self._remember_s = config.log.retention_s  # a trajectory is read again only while it is on its topic
        self._reader = Reader(log, READERS[GROUP], GROUP)
        self._assigned: frozenset[Where] = frozenset()
        self._next: dict[Where, int] = {}
        self._committed: dict[Where, int] = {}
        self._waiting: dict[str, _Waiting] = {}  # by reward id, oldest first
        self._asked: dict[Question, _Waiting] = {}
        self._index = Index(index_path(config, GROUP), log, REWARDS, Reward, _ids_in, lambda one: one.at)
        self._written: dict[str, tuple[Receipt, Reward]] = {}  # by reward id
        telemetry.observe(metrics.REWARDS_WAITING, lambda: len(self._waiting))
        telemetry.observe(metrics.OLDEST_UNSCORED, self._oldest_s)

    def step(self, timeout_s: float = POLL_S) -> None:
        """Read and write; flush and commit when there was anything."""
        num = self.read(timeout_s) + self.write()
        if num:
            self._log.flush(self._timeout_s)
            self.note()
            self.commit()

    def read(self, timeout_s: float = POLL_S) -> int:
        """1: read trajectories and ask about them. Returns how many messages there were."""
        batch = self._reader.poll(timeout_s)
        self._follow_assignment()
        for message, record in batch:
            self._next[message.topic, message.partition] = message.offset + 1
            if isinstance(record, Trajectory):
                self._take(record, message)
            elif isinstance(record, Erased) and not self._has_reward(message, record):
                fates.erased(self._log, record.trace_ids, self._clock())
        return len(batch)

    def _has_reward(self, message: Message, erased: Erased) -> bool:
        """Whether a trajectory whose person was erased has one, or an earlier revision of it: then its traces go on."""
        names = _at(message.partition, message.offset), _turns_of(erased.trace_ids)
        written = any(_turns_of(made.trace_ids) == names[1] for _, made in self._written.values())
        return written or bool(self._index.find(names))

    def _follow_assignment(self) -> None:
        """Partitions lost take what waits along; partitions gained may have been another process's."""
        assigned = self._reader.subscription.assignment()
        gained, self._assigned = assigned - self._assigned, assigned
        lost = [name for name, waiting in self._waiting.items() if waiting.where not in assigned]
        if lost:
            logger.info("partitions moved: %d waiting trajectories went with them", len(lost))
        for name in lost:
            self._drop(self._waiting.pop(name).lacks)
        for known in (self._next, self._committed):
            for where in known.keys() - assigned:
                del known[where]
        if gained:
            num_new = self._index.catch_up({partition for _, partition in gained})
            logger.info("reading %d partitions; %d rewards were new to the index", len(assigned), num_new)

    def _take(self, trajectory: Trajectory, message: Message) -> None:
        name = reward_id(self._scoring, trajectory)
        if name in self._waiting or name in self._written or self._index.get(name):
            logger.debug("%s: trajectory %s was read before", place(message), trajectory.trajectory_id)
            return
        asked = ask(self._scoring, trajectory)
        where = (message.topic, message.partition)
        waiting = _Waiting(
            trajectory, message.headers, where, message.offset, self._clock(), asked.outcomes, set(asked.open)
        )
        self._waiting[name] = waiting
        self._asked |= dict.fromkeys(asked.open, waiting)
        self._asking.ask(asked.open)

    def write(self) -> int:
        """2: append the rewards of all that lack nothing. Returns how many there were."""
        self._hear()
        self._give_up_oldest()
        ready = [name for name, waiting in self._waiting.items() if not waiting.lacks]
        for name in ready:
            self._write(self._waiting[name])
            del self._waiting[name]
        return len(ready)

    def _hear(self) -> None:
        for question, outcome in self._asking.answers():
            waiting = self._asked.pop(question, None)
            if waiting is not None:  # else nobody waits for it any more
                waiting.lacks.discard(question)
                waiting.outcomes[question.key] = outcome

    def _give_up_oldest(self) -> None:
        lacking = [waiting for waiting in self._waiting.values() if waiting.lacks]
        too_many, until = len(lacking) - self._max_waiting, self._clock() - self._max_wait_s
        for number, waiting in enumerate(lacking):
            if number < too_many or waiting.since <= until:
                told = TOO_MANY if number < too_many else TOO_LONG
                waiting.outcomes |= {question.key: told for question in waiting.lacks}
                self._drop(waiting.lacks)
                waiting.lacks.clear()

    def _drop(self, questions: Iterable[Question]) -> None:
        self._asking.drop(questions)
        for question in questions:
            del self._asked[question]

    def _write(self, waiting: _Waiting) -> None:
        trajectory, begun = waiting.trajectory, time.monotonic()
        about = names.messaging("process", TRAJECTORIES.name) | {names.GROUP: GROUP}
        with telemetry.span(
            names.SCORE, about | _told_of(waiting), parent=waiting.headers, of=TRAJECTORIES.name
        ) as span:
            source = Source(partition=waiting.where[1], offset=waiting.offset)
            made = reward(self._scoring, trajectory, waiting.outcomes, self._clock(), source)
            telling.show(span, made)
            try:
                receipt = send(self._log, REWARDS, session_key(trajectory.session_id), made)
                self._written[made.reward_id] = (receipt, made)
            except RecordError as exc:
                if trajectory.revision == 1:
                    fates.dead_letter(self._log, trajectory, str(exc), made.at)
                else:
                    why = telemetry.Local(str(exc))
                    logger.warning("trajectory %s is not scored again: %s", trajectory.trajectory_id, why)
                return
        telemetry.record(metrics.PROCESS_DURATION, time.monotonic() - begun, about)
        telling.count(made)
        logger.info("session %s: %s", telemetry.Local(trajectory.session_id), telemetry.Local(told(made)))

    def _oldest_s(self) -> float:
        """Age of the oldest session that waits; asked for from another thread."""
        return max((self._clock() - one.trajectory.opened_at for one in tuple(self._waiting.values())), default=0.0)

    def note(self) -> None:
        """4: copy what was written into the index, and let it go of rewards whose trajectories are on no topic."""
        self._index.note((receipt, self._index.named(made)) for receipt, made in self._written.values())
        self._written.clear()
        self._index.forget(self._clock() - self._remember_s)

    def commit(self) -> None:
        """5: move the group's positions to their low watermarks."""
        held: dict[Where, int] = {}
        for waiting in self._waiting.values():
            held[waiting.where] = min(waiting.offset, held.get(waiting.where, waiting.offset))
        positions = {where: min(held.get(where, following), following) for where, following in self._next.items()}
        if positions != self._committed:
            self._reader.subscription.commit(positions)
            self._committed = positions

    def close(self) -> None:
        """Leave the group. Nothing is committed that was not flushed."""
        self._drop(tuple(self._asked))
        self._reader.close()
        self._index.close()


def _told_of(waiting: _Waiting) -> names.Told:
    return {
        names.PARTITION: str(waiting.where[1]),
        names.OFFSET: waiting.offset,
        names.TRAJECTORY: waiting.trajectory.trajectory_id,
        names.NUM_TURNS: len(waiting.trajectory.turns),
    }


def _ids_in(reward: Reward) -> list[str]:
    """What the index knows a reward by: its id, and its turns and where its trajectory lies, should that be erased."""
    found = [reward.reward_id, _turns_of(reward.trace_ids)]
    return found if reward.source is None else [*found, _at(reward.source.partition, reward.source.offset)]


def _at(partition: int, offset: int) -> str:
    return f"trajectory {partition}@{offset}"


def _turns_of(trace_ids: Iterable[str]) -> str:
    """A session's turns, which are the same in all revisions of it."""
    return f"turns from {next(iter(trace_ids), '')}"


def told(made: Reward) -> str:
    """A reward in a line: the session's value, and what each component said of its turns."""
    by_name: dict[str, list[Component]] = {}
    for component in made.components:
        by_name.setdefault(component.name, []).append(component)
    parts = []
    for name, said in by_name.items():
        values = [component.value for component in said if component.value is not None]
        reasons = sorted({component.unscored for component in said if component.unscored})
        mean = f"{fmean(values):.3f} over {len(values)} of {len(said)} turns" if values else "unscored"
        parts.append(f"{name} {mean}" + (f" ({'; '.join(reasons)})" if reasons else ""))
    value = f"value {made.value:.3f}" + ("" if made.has_signal else " for silence")
    return ", ".join([value, *parts])


def run(log: EventLog, config: Config, scoring: Scoring, asking: Asking, stop: Stop) -> None:
    """Score until `stop` is set. Raises `LogError` when the log fails; call again to go on from what it has."""
    stage = Stage(log, config, scoring, asking)
    try:
        while not stop.is_set():
            stage.step()
            stop.pulse.beat()
    finally:
        stage.close()
