"""Traffic through the ingest stage and the lake's writer while both are killed at every step of their commits.

Two workers of each share the partitions and come and go. Traces and feedback are delivered more than once, feedback
before its trace and long after its session closed, sessions mixed. A kill leaves what a killed process leaves: what is
on the log and on disk, and memberships that the broker ends. `tests/ingest/lake/test_kills.py` kills real processes.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traffic import Session, session, stored

from infra.config import Config, IngestConfig, LogConfig, ModelConfig
from ingest.audit.account import Account, Limits
from ingest.audit.reading import take
from ingest.lake.content import NoSeal, Vault
from ingest.lake.manifest import Table
from ingest.lake.schema import newest
from ingest.lake.steps import Step
from ingest.lake.storage import Storage
from ingest.lake.table import Lake
from ingest.lake.writer import Writer
from ingest.log import fates, letters
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import TopicSpec
from ingest.log.reader import Follower, replay, send
from ingest.log.topics import ALL, FATES, FEEDBACK, TRACES, TRAJECTORIES, late_letters
from ingest.records.events import Fate, FateKind, Feedback, Trace, Trajectory, key_of, session_key
from ingest.sessions.assemble import Assembler

PARTITIONS = 4
TICK_S = 20.0
AGAIN = 0.05  # share of messages that are delivered once more
LATE = 0.1  # share of feedback that comes when its session has long closed
KILL, LEAVE = 0.3, 0.1  # chances of a worker in each tick
WRITING = (Step.READ, Step.LETTERED, Step.FILE, Step.FILES, Step.COMMITTED, Step.FOLLOWED)


class KilledError(BaseException):
    """Stands for kill -9: nothing catches it."""


@dataclass
class Found:
    """What there was, and what became of it. Ids by how often they are found where each should be once; `in_lake`
    are rows as files have them, `lake_ids` what is read."""

    traces: set[str] = field(default_factory=set)
    feedback: set[str] = field(default_factory=set)
    in_trajectories: Counter[str] = field(default_factory=Counter)
    feedback_ended: Counter[str] = field(default_factory=Counter)
    in_lake: dict[Table, Counter[Any]] = field(default_factory=dict)
    lake_ids: dict[Table, set[str]] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    num_revised: int = 0
    account: Account | None = None


class Chaos:
    """One run of `num_sessions`, `per_tick` of which begin in each 20 s; the same for the same `seed`."""

    def __init__(self, folder: Path, num_sessions: int, seed: int = 0, per_tick: int = 15) -> None:
        self._rng = random.Random(seed)
        self._num_sessions, self._per_tick = num_sessions, per_tick
        self.log, self.now = InMemoryLog(), 0.0
        self.log.create(TopicSpec(topic.name, 1 if topic.ordered else PARTITIONS, None) for topic in ALL)
        ingest = IngestConfig.model_validate(
            {"inactivity_s": 60.0, "horizon_s": 3600.0, "held_out_share": 0.0, "lake": {"flush_s": 1.0}}
        )
        log = LogConfig(partitions=PARTITIONS)
        self.config = Config(run_dir=str(folder), model=ModelConfig(path="unused"), log=log, ingest=ingest)
        self.found = Found()
        self._workers: list[Assembler | None] = [None, None]
        self._writers: list[Writer | None] = [None, None]
        self._fuse: Callable[[Step], None] = lambda _: None
        self._late: list[tuple[float, Feedback]] = []
        self._trajectories = Follower(self.log, [TRAJECTORIES])
        self._known: list[Trajectory] = []

    def run(self, told: Callable[[int], None] = lambda _: None) -> Found:
        """Everything, to its end. `told` hears how many sessions have begun."""
        for begun in range(0, self._num_sessions, self._per_tick):
            numbers = range(begun, min(begun + self._per_tick, self._num_sessions))
            self._deliver([session(number, at=self.now) for number in numbers])
            self._tick(KILL, LEAVE)
            told(numbers.stop)
        for kill, leave in ((KILL, LEAVE), (0.0, 0.0)):
            until = self.now + 1000.0  # what is late comes within 800 s, and its session then closes
            while self.now < until:
                self._tick(kill, leave)
        self._look()
        return self.found

    # -- traffic

    def _deliver(self, made: list[Session]) -> None:
        """Sessions mixed, each one's traces in their order; feedback anywhere, some of it much later."""
        lines = [list(stored(one.traces)) for one in made]
        given = [feedback for one in made for feedback in one.feedback]
        self.found.traces |= {trace.trace_id for one in made for trace in one.traces}
        self.found.feedback |= {feedback.feedback_id for feedback in given}
        late = [feedback for feedback in given if self._rng.random() < LATE]
        self._late += [(self.now + 400.0 + self._rng.random() * 400.0, feedback) for feedback in late]
        soon: list[Feedback] = [feedback for feedback in given if feedback not in late]
        self._rng.shuffle(soon)
        while lines or soon:
            if soon and self._rng.random() < 0.3:
                self._put(soon.pop())
            elif lines:
                line = self._rng.choice(lines)
                self._put(line.pop(0))
                lines = [left for left in lines if left]
            else:
                self._put(soon.pop())

    def _put(self, record: Trace | Feedback) -> None:
        times = 2 if self._rng.random() < AGAIN else 1
        for _ in range(times):
            if isinstance(record, Trace):
                send(self.log, TRACES, session_key(record.session_id), record)
            else:
                send(self.log, FEEDBACK, key_of(session_id=record.session_id, trace_id=record.trace_id), record)

    # -- a tick

    def _tick(self, kill: float, leave: float) -> None:
        self.now += TICK_S
        for at, feedback in [one for one in self._late if one[0] <= self.now]:
            self._put(feedback)
            self._late.remove((at, feedback))
        for number in range(2):
            self._assemble(number, kill, leave)
            self._write(number, kill, leave)
        self._give_fates()

    def _assemble(self, number: int, kill: float, leave: float) -> None:
        """A worker's step, as far as it lives: killed, it is gone after one of the five."""
        stage = self._workers[number] or Assembler(self.log, self.config, clock=lambda: self.now)
        steps = {
            "1 poll": lambda: self._drained(stage.poll),
            "2 close": stage.close_ended,
            "3 flush": lambda: self.log.flush(1.0),
            "4 index": stage.note,
            "5 commit": stage.commit,
        }
        last = self._rng.choice(list(steps)) if self._rng.random() < kill else None
        for name, step in steps.items():
            step()
            if name == last:
                self.found.kills[f"ingest {name}"] += 1
                stage._reader.close()  # the broker ends its membership; what it had open on disk is let go of
                self._workers[number] = None
                return
        if self._rng.random() < leave:
            stage.close()
            self._workers[number] = None
        else:
            self._workers[number] = stage

    def _write(self, number: int, kill: float, leave: float) -> None:
        writer = self._writers[number]
        if writer is None:
            lake = Lake(Storage(self.config.ingest.lake.url), lambda: self.now, self._watch, checkpoint_every=8)
            writer = Writer(self.log, lake, Vault(NoSeal()), self.config, lambda: self.now, self._watch)
        doomed = self._rng.choice(WRITING) if self._rng.random() < kill else None
        self._fuse = self._burning(doomed)
        try:
            self._drained(writer.read)
            writer.step(0.0)
        except KilledError:
            self.found.kills[f"lake {doomed}"] += 1
            writer._reader.close()
            self._writers[number] = None
            return
        finally:
            self._fuse = lambda _: None
        self._writers[number] = writer
        if self._rng.random() < leave:
            writer.close()
            self._writers[number] = None

    def _watch(self, step: Step) -> None:
        self._fuse(step)

    def _burning(self, doomed: Step | None) -> Callable[[Step], None]:
        def burn(step: Step) -> None:
            if step is doomed:
                raise KilledError

        return burn

    def _drained(self, poll: Callable[[float], int]) -> None:
        while poll(0.0):
            pass

    def _give_fates(self) -> None:
        """In the trainer's place: one fate for each trace, told again now and then, as after a crash."""
        new = [record for record in self._trajectories.poll(0.0, 100_000) if isinstance(record, Trajectory)]
        self._known += new
        for trajectory in [*new, *self._rng.sample(self._known, min(2, len(self._known)))]:
            names = tuple(turn.trace_id for turn in trajectory.turns)
            ended = Fate(trace_ids=names, kind=FateKind.HELD_OUT, reason="chaos", at=trajectory.opened_at)
            fates.tell(self.log, [ended])

    # -- the end

    def _look(self) -> None:
        found = self.found
        found.num_revised = sum(one.revision > 1 for one in replay(self.log, TRAJECTORIES, Trajectory))
        for trajectory in self._newest():
            found.in_trajectories.update(turn.trace_id for turn in trajectory.turns)
            found.feedback_ended.update(feedback.feedback_id for feedback in trajectory.feedback)
        lake = Lake(Storage(self.config.ingest.lake.url), lambda: self.now)
        snapshot = lake.refresh()
        keys = {Table.SESSIONS: "trajectory_id", Table.TURNS: "trace_id", Table.FEEDBACK: "feedback_id"}
        for table, key in (keys | {Table.FATES: "trace_id"}).items():
            rows = lake.scan(table, snapshot.of(table)).select("partition", "offset", key).collect()
            found.in_lake[table] = Counter(rows.iter_rows())
            found.lake_ids[table] = set(newest(table, lake.scan(table, snapshot.of(table))).collect()[key])
        found.account = take(self.log, Limits.of(self.config), self.now)

    def late_letters(self) -> dict[str, letters.Failure]:
        """Feedback that ingest noted as too late, by where it lay."""
        return letters.read(self.log, late_letters(FEEDBACK.name, "ingest"))

    def _newest(self) -> Iterable[Trajectory]:
        """The last revision of each trajectory on the topic."""
        found = dict[str, Trajectory]()
        for trajectory in replay(self.log, TRAJECTORIES, Trajectory):
            root = trajectory.turns[0].trace_id
            if root not in found or trajectory.revision > found[root].revision:
                found[root] = trajectory
        return found.values()

    def on_topic(self) -> Iterator[str]:
        """Ids of the trajectories on their topic, of each in its last revision."""
        return (trajectory.trajectory_id for trajectory in self._newest())

    def fated(self) -> Counter[str]:
        """How many different fates each trace has."""
        ends: dict[str, set[tuple[FateKind, int | None]]] = {}
        for fate in replay(self.log, FATES, Fate):
            for name in fate.trace_ids:
                ends.setdefault(name, set()).add((fate.kind, fate.version))
        return Counter({name: len(kinds) for name, kinds in ends.items()})
