"""A lake's writer that kills itself: `lake_child.py FOLDER write|join|log STEP NUMBER [BROKERS]`.

At the NUMBERth time that STEP is reached the process ends by SIGKILL, as by `kill -9`. With a STEP of "" it goes to its
end. `write` makes the log in this process's memory, always the same one, and no offsets outlive it; `log` reads a
broker's. `join` joins and sweeps what is there.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lake_traffic import Played, Traffic

from infra.config import Config, IngestConfig, LakeConfig, LogConfig, ModelConfig
from ingest.lake import compaction, writer
from ingest.lake.content import NoSeal, Vault
from ingest.lake.steps import Step
from ingest.lake.storage import Storage
from ingest.lake.table import GRACE_S, Lake
from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import EventLog
from ingest.log.reader import send
from ingest.records.events import Record, session_key

SESSIONS = 120
MAX_MESSAGES = 12


def sessions() -> list[Played]:
    """What is on the log."""
    return list(Traffic(seed=7).sessions(SESSIONS))


def sent(played: Played) -> Iterator[tuple[topics.Topic, Record]]:
    """The records of a session, and where each goes."""
    yield topics.TRAJECTORIES, played.trajectory
    yield topics.REWARDS, played.reward
    for fate in played.fates:
        yield topics.FATES, fate
    for feedback in played.feedback:
        yield topics.FEEDBACK, feedback


def fill(log: EventLog, partitions: int = 2) -> None:
    """Put everything on a log, with one message that nobody can read and one record that was sent twice."""
    log.create(topics.specs(partitions, 1e6))
    for played in sessions():
        for topic, record in sent(played):
            send(log, topic, session_key(played.trajectory.session_id), record)
    for topic, record in sent(sessions()[0]):
        send(log, topic, session_key(sessions()[0].trajectory.session_id), record)
    log.append(topics.REWARDS.name, "k", b"not a reward", {"schema": "reward/1"})
    send(log, topics.RELEASES, "", Traffic().release())
    log.flush(10.0)


def configuration(folder: Path, brokers: str) -> Config:
    """Small batches."""
    lake = LakeConfig(url=str(folder), max_rows=1)
    log = LogConfig(brokers=brokers, timeout_s=10.0)
    return Config(model=ModelConfig(path="unused"), log=log, ingest=IngestConfig(lake=lake))


class Fuse:
    """Kills this process at the `number`th `step`."""

    def __init__(self, step: str, number: int) -> None:
        self._step, self._left = step, number

    def __call__(self, step: Step) -> None:
        self._left -= step.name == self._step
        if self._left == 0 and step.name == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


def write(log: EventLog, lake: Lake, config: Config, fuse: Fuse) -> None:
    """Everything that is on the log."""
    stage = writer.Writer(log, lake, Vault(NoSeal()), config, watch=fuse, max_messages=MAX_MESSAGES)
    quiet = 0
    while quiet < 3:
        num = stage.read(0.1)
        stage.flush()
        quiet = 0 if num or any(log.lag(writer.GROUP, [topic.name for topic in writer.TOPICS]).values()) else quiet + 1
    stage.close()


def main(folder: str, mode: str, step: str, number: str, brokers: str = "127.0.0.1:9") -> None:
    fuse = Fuse(step, int(number))
    late_s = 2 * GRACE_S if mode == "join" else 0.0
    lake = Lake(Storage(folder), lambda: time.time() + late_s, fuse, checkpoint_every=3)
    config = configuration(Path(folder), brokers)
    if mode == "join":
        for job in compaction.plan(lake.refresh().files.values(), time.time()):
            compaction.join(lake, job)
        lake.sweep()
    elif mode == "write":
        log = InMemoryLog()
        fill(log)
        write(log, lake, config, fuse)
    else:
        from ingest.log.kafka_log import KafkaLog

        kafka = KafkaLog(config.log, "lake-test", "lake-test")
        write(kafka, lake, config, fuse)
        kafka.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
