"""How long a stage takes from its process's start until it has its partitions and stands where it stood.

With 10,000 and with 1,000,000 sessions done before it. Process, broker, group and consumers are real, and so are files,
which are put out of the machine's cache before each start.

    ingest, rewards    the index is the real file with all their ids. Of the topic that it copies only the numbers are:
                       the log here says that its partitions end where a million records would end them, and gives none,
                       for there is none behind the index's position. A stage that asked for one of them would fail
    trainer, rollout   checkpoint, manifests, evidence, and what is on the log: see `past.py`. The learner holds no
                       weights and engines only say what they serve: neither knows of sessions. Neither waits for what
                       does not come as long as it would: that would hide what grows
"""

import json
import os
import random
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SIZES = (10_000, 1_000_000)
NUM_TURNS, ROUNDS = 3, 5
STAGES = ("ingest", "rewards")
OTHERS = ("trainer", "rollout")
WAIT_S, QUIET_S = 0.01, 2


@dataclass(frozen=True)
class Behind:
    """A log whose topic `name` ends `num` records later in each partition than it does, all of them copied."""

    log: Any
    name: str
    num: int

    def __getattr__(self, what: str) -> Any:
        return getattr(self.log, what)

    def ends(self, topic: str) -> dict[int, int]:
        more = self.num if topic == self.name else 0
        return {part: end + more for part, end in self.log.ends(topic).items()}

    def replay(self, topic: str, begin: Any = None, partitions: Collection[int] | None = None) -> Iterator[Any]:
        if topic != self.name:
            return self.log.replay(topic, begin, partitions)
        short = {where: offset - self.num for where, offset in begin.items()}
        assert len(short) == len(partitions or ()) and min(short.values()) >= 0, "what was copied is not read again"
        return self.log.replay(topic, short, partitions)


# -- a start, in a process of its own


def start(which: str, folder: str, brokers: str, num: int) -> float:
    """The stage up to its first tick. Returns when that was over, in Unix seconds."""
    from infra import lifecycle
    from infra.config import Config
    from ingest.log import topics
    from ingest.log.kafka_log import KafkaLog

    config = Config.model_validate({"run_dir": folder, "model": {"path": "."}, "log": {"brokers": brokers}})
    if which in OTHERS:
        return start_trainer(config) if which == "trainer" else start_rollout(config)
    topic = topics.TRAJECTORIES if which == "ingest" else topics.REWARDS
    behind = num // config.log.partitions
    log = KafkaLog(config.log, client_id=which, member=socket.gethostname())
    lifecycle.collect_rarely()
    stage = _stage(which, Behind(log, topic.name, behind), config)
    while not stage._assigned:
        stage.step()
    for step in ("close_ended", "write"):
        if hasattr(stage, step):
            getattr(stage, step)()
    log.flush(config.log.timeout_s)
    stage.note()
    stage.commit()
    over = time.time()
    assert not any(stage._committed.values()) and stage._index.get(_id(random.Random(0))) is not None
    stage.close()
    log.close()
    return over


def _stage(which: str, log: Any, config: Any) -> Any:
    if which == "ingest":
        from ingest.sessions.assemble import Assembler

        return Assembler(log, config)
    from rewards.spec import load
    from rewards.stage import Stage

    class Nobody:
        def answers(self) -> Iterator[Any]:
            return iter(())

        def drop(self, _: Any) -> None:
            pass

    return Stage(log, config, load(""), Nobody())


def start_trainer(config: Any) -> float:
    """Up to its partitions, and all of the release log."""
    from still import StillPolicy

    from infra.lifecycle import Stop
    from ingest.log import topics
    from ingest.log.connect import connect
    from ingest.store.versions import VersionStore
    from trainer import loop

    loop.POLL_S = WAIT_S
    log = connect(config, client_id="trainer", member=socket.gethostname())
    trainer = loop.Trainer(config, log, VersionStore.of(config.store, publishes=True), StillPolicy(), Stop())
    begun = trainer.state
    trainer.recover()
    while not trainer._inbox._assigned or _unread(log, trainer._releases._follower.positions, topics.RELEASES):
        trainer.tick()
    over = time.time()
    assert trainer.state == begun and not trainer._inbox.items and not trainer._inbox.num_unread()
    assert trainer.status["candidate"] == trainer._releases.served.on_trial is not None
    trainer.close()
    log.close()
    return over


def start_rollout(config: Any) -> float:
    """Up to its claim, all of the release log and of the versions, and a look at the trial."""
    from past import ON_TRIAL
    from rollouts import Hand

    from ingest.log import topics
    from ingest.log.connect import connect
    from ingest.store.versions import VersionStore
    from serving.rollout.controller import Rollout

    own = config.serving.rollout.model_copy(update={"tick_s": WAIT_S})
    log = connect(config, client_id="rollout")
    hands = {slot.id: Hand(slot) for slot in config.serving.engines}
    kept = Path(config.run_dir) / "rollout" / "evidence.json"
    rollout = Rollout(log, VersionStore.of(config.store), hands, own, kept)  # type: ignore[arg-type]
    rollout.start()
    for name, hand in hands.items():
        hand.version = rollout.served.engines[name]
    rollout.tick()
    while _unread(log, rollout._reading.positions, topics.RELEASES, topics.VERSIONS, topics.REWARDS):
        rollout.tick()
    over = time.time()
    assert rollout.standing is not None and rollout.standing.num_units == ON_TRIAL
    assert rollout.served.on_trial in rollout._reading.waiting
    rollout.close()
    log.close()
    return over


def _unread(log: Any, positions: Mapping[tuple[str, int], int], *asked: Any) -> bool:
    return any(positions.get((one.name, part), 0) < end for one in asked for part, end in log.ends(one.name).items())


# -- what lies behind it


def _id(rng: random.Random) -> str:
    return f"{rng.getrandbits(64):016x}"


def make_index(path: Path, which: str, num_sessions: int, partitions: int) -> None:
    """The file that a stage has after so many sessions, by its own layout; written in order of ids, which is faster."""
    from ingest.log import topics
    from ingest.log.index import Index
    from ingest.log.memory import InMemoryLog
    from ingest.records.events import Trajectory

    Index(path, InMemoryLog(), topics.TRAJECTORIES, Trajectory, lambda _: (), lambda _: 0.0).close()
    rng, now, num = random.Random(0), time.time(), num_sessions // partitions
    keys = sorted(_id(rng) for _ in range(num_sessions))
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.executemany("INSERT INTO ids VALUES (?, ?, ?, ?)", _rows(keys, which, rng, now, partitions))
        db.executemany("INSERT INTO positions VALUES (?, ?)", [(part, num) for part in range(partitions)])
    db.close()


def _rows(
    keys: list[str], which: str, rng: random.Random, now: float, partitions: int
) -> Iterator[tuple[str, int, int, float]]:
    for number, key in enumerate(keys):
        where = number % partitions, number // partitions, now - rng.uniform(0.0, 80_000.0)
        yield key, *where
        if which == "ingest":
            yield from (
                (name, *where) for name in sorted(f"{key}-{rng.getrandbits(128):032x}" for _ in range(NUM_TURNS))
            )
    if which == "ingest":
        names = sorted(f"feedback:{rng.getrandbits(128):032x}" for _ in keys)
        yield from ((name, n % partitions, n // partitions, now) for n, name in enumerate(names))


def _let_go(folder: Path) -> None:
    """Put what lies in a folder out of the machine's cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare(advance: Callable[[], None], rounds: int = ROUNDS) -> dict[str, float | None]:
    """Seconds to start with few and many sessions behind, medians, and what the many cost."""
    return _with_an_index(advance, rounds) | _with_a_past(advance, rounds)


def _with_an_index(advance: Callable[[], None], rounds: int) -> dict[str, float | None]:
    from rate import configured, running_broker

    from ingest.log import topics
    from ingest.log.kafka_log import KafkaLog

    figures: dict[str, float | None] = {}
    with TemporaryDirectory() as given, running_broker(Path(given)) as (brokers, _):
        config = configured(Path(given), brokers)
        log = KafkaLog(config.log, client_id="bench")
        log.create(topics.specs(config.log.partitions, config.log.retention_s))
        log.close()
        for which in STAGES:
            paths = {num: Path(given) / str(num) / "index" / f"{which}.sqlite" for num in SIZES}
            for num, path in paths.items():
                make_index(path, which, num, config.log.partitions)
            folders = {num: (path.parents[1], brokers) for num, path in paths.items()}
            name = "restart" if which == "ingest" else f"restart_{which}"
            figures |= _timed(which, name, folders, rounds, lambda _: advance())
            figures |= {f"{name}_index_mib": round(paths[SIZES[-1]].stat().st_size / 2**20)}
            for path in paths.values():
                path.unlink()
    return figures


def _with_a_past(advance: Callable[[], None], rounds: int) -> dict[str, float | None]:
    """A broker for each size: its log has all that is kept for ever. One that holds much rewrites it after a start that
    wrote to it, beside the next one, and is left to come to rest."""
    import past
    from rate import come_to_rest, configured, running_broker

    figures: dict[str, float | None] = {}
    with TemporaryDirectory() as given, ExitStack() as stack:
        folders, processes = {}, {}
        for num in SIZES:
            folder = Path(given) / str(num)
            folder.mkdir()
            brokers, processes[num] = stack.enter_context(running_broker(folder))
            folders[num] = folder / "run", brokers
            figures[f"restart_releases_{num}"] = past.make(configured(*folders[num]), num)
            come_to_rest(processes[num], QUIET_S)

        def done(num: int) -> None:
            if num == SIZES[-1]:
                come_to_rest(processes[num], QUIET_S)
            advance()

        for which in OTHERS:
            figures |= _timed(which, f"restart_{which}", folders, rounds, done)
    return figures


def _timed(
    which: str, name: str, folders: Mapping[int, tuple[Path, str]], rounds: int, done: Callable[[int], None]
) -> dict[str, float | None]:
    """In turns. `folders` are a run's, with the brokers of its log, by how many sessions lie behind; with these each
    start is `done`."""
    seconds: dict[int, list[float]] = {num: [] for num in SIZES}
    for number in range(rounds + 1):
        for num in SIZES if number % 2 else reversed(SIZES):
            took = _once(which, *folders[num], num)
            if number:  # the first makes the group and warms what both have in common
                seconds[num].append(took)
            done(num)
    few, many = (statistics.median(seconds[num]) for num in SIZES)
    figures: dict[str, float | None] = {f"{name}_s_{num}": round(statistics.median(seconds[num]), 3) for num in SIZES}
    return figures | {f"{name}_ratio": round(many / few, 3)}


def _once(which: str, folder: Path, brokers: str, num: int) -> float:
    _let_go(folder)
    command = [sys.executable, __file__, which, str(folder), brokers, str(num)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    begun = time.time()
    answer = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return float(json.loads(answer.stdout.splitlines()[-1])) - begun


if __name__ == "__main__":
    which, folder, brokers, num = sys.argv[1:]
    print(json.dumps(start(which, folder, brokers, int(num))))
