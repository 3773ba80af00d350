"""Traces per second through the ingest stage, against a loop that only polls and decodes them.

All sides read the same messages from the same broker, in turns, each in a process of its own; `pair` is the stage as
two processes that share its group, each on half of the partitions: they wait for each other and then begin anew, which
costs each of them its first fetch. Nothing is written while they begin: the small broker rewrites all it holds every
few seconds of writing, so it is left to come to rest first. A side's clock runs from when it has its partitions (its
first fetch brings most of the messages, and is part of the time) to the last message decoded, or to the commit behind
the last trajectory.

The stage is as shipped, but for its clock: sessions are hours old, and once everything was read its clock is set on by
the time that the stage waits for stragglers (`settle_s`), in which it would do nothing.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from drawn import Drawn, sessions
from kafka import KafkaConsumer
from kafka.coordinator.assignors.range import RangePartitionAssignor
from ports import free_port

from infra import broker, lifecycle
from infra.config import Config
from ingest.log import topics
from ingest.log.kafka_clients import KafkaClients
from ingest.log.kafka_log import KafkaLog
from ingest.records import codec
from ingest.records.events import Feedback, Record, Trace, session_key
from ingest.sessions import assemble
from ingest.sessions.table import settle_s
from serving.engine.recent import Recent

NUM_SESSIONS, NUM_TURNS, ROUNDS = 12_000, 5, 3
AGE_S, SPREAD_S = 7200.0, 3600.0
MAX_MESSAGES = 500
QUIET_S, QUIET_SHARE, LOUD_S = 3, 0.05, 180.0
SIDES = ("bare", "stage", "pair")
READ = (topics.TRACES, topics.FEEDBACK)
CONSUMING = {  # as the stage's own consumer has it
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "partition_assignment_strategy": (RangePartitionAssignor,),
    "session_timeout_ms": 15_000,
    "max_poll_interval_ms": 900_000,
    "max_partition_fetch_bytes": 16 << 20,
    "allow_auto_create_topics": False,
    "metrics_enabled": False,
}


def configured(folder: Path, brokers: str = "127.0.0.1:9092") -> Config:
    """Everything as shipped, below `folder`."""
    return Config.model_validate({"run_dir": str(folder), "model": {"path": "."}, "log": {"brokers": brokers}})


# -- the sides, each in a process of its own


class Watched:
    """A log, and since when its group has its partitions; counts what is read."""

    def __init__(self, log: Any) -> None:
        self._log, self._subscription = log, None
        self.read = 0
        self._begun: tuple[float, float] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(
            self._log if name in ("append", "flush", "lag", "ends", "replay", "fetch") else self._subscription, name
        )

    def subscribe(self, names: Any, group: str | None) -> "Watched":
        self._subscription = self._log.subscribe(names, group)
        return self

    def watch(self, consumer: Any) -> None:
        """Look, beside the one who polls, for the moment at which a consumer has partitions."""

        def look() -> None:
            while not consumer.assignment():
                time.sleep(0.001)
            self._begun = time.monotonic(), time.process_time()

        threading.Thread(target=look, daemon=True).start()

    def poll(self, timeout_s: float, max_messages: int = MAX_MESSAGES) -> Any:
        found = self._subscription.poll(timeout_s, max_messages)
        self.read += len(found)
        return found

    def gather(self, num_parts: int) -> int:
        """Begin at the beginning of `num_parts` partitions, once the group has come to that. How much they hold."""
        while len(self.assignment()) != num_parts:
            self._subscription.poll(0.05, 1)
        self._begun = time.monotonic(), time.process_time()
        self.seek(dict.fromkeys(self.assignment(), 0))
        return sum(self.ends(topic)[number] for topic, number in self.assignment())

    def told(self) -> dict[str, float]:
        """How many messages, when they were begun and ended, and this process's computing, in seconds."""
        assert self._begun is not None
        begun, cpu = self._begun
        spent = time.process_time() - cpu
        return {"read": self.read, "begun": begun, "ended": time.monotonic(), "cpu_s": spent}


def stage(config: Config, name: str, num_workers: int) -> Watched:
    """Read, join, close, write and commit it all, or this worker's share of it."""
    assemble.GROUP = name  # a round's own, so that it begins at the beginning
    assemble.READERS = {name: assemble.READERS["ingest"]}
    log = KafkaLog(config.log, client_id="ingest")
    watched, skipped_s = Watched(log), 0.0
    lifecycle.collect_rarely()
    running = assemble.Assembler(watched, config, lambda: time.time() + skipped_s, MAX_MESSAGES)
    if num_workers == 1:
        watched.watch(watched)
        num_messages = sum(end for topic in READ for end in log.ends(topic.name).values())
    else:
        num_messages = watched.gather(len(READ) * config.log.partitions // num_workers)
    while watched.read < num_messages:
        running.step()
    skipped_s = settle_s(config.ingest) + 1.0
    while len(running.table):
        running.step(timeout_s=0.0)  # nothing more is coming
    return watched


def bare(config: Config, name: str, num_messages: int) -> Watched:
    """Poll and decode, with kafka-python and the same codec."""
    kinds: dict[str, type[Record]] = {topic.name: topic.record for topic in READ}
    consumer = KafkaConsumer(bootstrap_servers=config.log.brokers, group_id=name, **CONSUMING)
    consumer.subscribe(list(kinds))
    watched = Watched(None)
    watched.watch(consumer)
    lifecycle.collect_rarely()
    while watched.read < num_messages:
        polled = consumer.poll(timeout_ms=500, max_records=MAX_MESSAGES)
        watched.read += sum(map(len, polled.values()))
        for part, records in polled.items():
            for record in records:
                headers = {key: value.decode() for key, value in record.headers}
                decoded = codec.decode(record.value, headers, kinds[part.topic])
                if isinstance(decoded, Trace):  # numbers stay packed until somebody asks for them
                    numbers = decoded.prompt_token_ids, decoded.token_ids, decoded.logprobs
                    assert all(isinstance(tuple(given), tuple) for given in numbers)
    return watched


def side(which: str, brokers: str, name: str, num_messages: int) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        config = configured(Path(folder), brokers)
        if which == "bare":
            return bare(config, name, num_messages).told()
        return stage(config, name, 2 if which == "pair" else 1).told()


# -- the broker and what it holds


@contextmanager
def running_broker(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The small broker, for a while: its address and its process."""
    host, port = "127.0.0.1", free_port()
    with (folder / "broker.log").open("wb") as told:
        process = subprocess.Popen(broker.command(folder / "data", host, port), stdout=told, stderr=told)
        try:
            while not broker.listens(host, port):
                assert process.poll() is None, (folder / "broker.log").read_text()
                time.sleep(0.1)
            yield f"{host}:{port}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def come_to_rest(process: psutil.Process, quiet_s: int = QUIET_S) -> None:
    """Return once the broker has done next to nothing for some seconds."""
    quiet, until = 0, time.monotonic() + LOUD_S
    while quiet < quiet_s:
        quiet = quiet + 1 if process.cpu_percent(1.0) < QUIET_SHARE * 100 else 0
        assert time.monotonic() < until, f"the broker does not come to rest within {LOUD_S:g} s"


@dataclass(frozen=True)
class Input:
    """A message to be read, and when it was made."""

    topic: str
    key: str
    value: bytes
    headers: dict[str, str]
    at: float


def inputs(drawn: Iterable[Drawn]) -> Iterator[Input]:
    """What capture and router write of sessions, session by session."""
    for session in drawn:
        key, found = session_key(session["session_id"]), list[tuple[bytes, dict[str, str]]]()

        def write(trace: Trace, found: list[tuple[bytes, dict[str, str]]] = found) -> bytes:
            found.append(codec.encode(trace))
            return found[-1][0]

        recent = Recent(max_bytes=1 << 30, max_age_s=900.0)
        for turn in session["turns"]:
            recent.store(Trace.model_validate(turn), write)
            yield Input(topics.TRACES.name, key, *found[-1], turn["finished_at"])
        for one in session["feedback"]:
            yield Input(topics.FEEDBACK.name, key, *codec.encode(Feedback.model_validate(one)), one["at"])


def produce(config: Config) -> int:
    """Write the input in the order of its times. Returns how many messages that are."""
    log = KafkaLog(config.log, client_id="capture")
    log.create(topics.specs(config.log.partitions, config.log.retention_s))
    drawn = sessions(NUM_SESSIONS, NUM_TURNS, time.time() - AGE_S, SPREAD_S)
    made = sorted(inputs(drawn), key=lambda one: one.at)
    for number, one in enumerate(made, 1):
        log.append(one.topic, one.key, one.value, one.headers)
        if number % 5000 == 0:
            log.flush(120.0)
    log.flush(120.0)
    log.close()
    return len(made)


def empty(config: Config) -> None:
    """Make the topic of trajectories anew: what a round wrote, the next would find done."""
    name = topics.TRAJECTORIES.name
    admin = KafkaClients(config.log, "bench").admin()
    admin.delete_topics([name])[name].result()
    log = KafkaLog(config.log, client_id="bench")
    log.create([spec for spec in topics.specs(config.log.partitions, config.log.retention_s) if spec.name == name])
    log.close()


def run(which: str, brokers: str, name: str, num: int) -> tuple[float, float]:
    """A side's seconds, and its seconds of computing, for a message."""
    asked = [[which, brokers, name, str(num)]] * (2 if which == "pair" else 1)
    with ThreadPoolExecutor() as pool:
        told = list(pool.map(lambda one: apart("rate.py", *one), asked))
    assert sum(one["read"] for one in told) == num
    wall_s = max(one["ended"] for one in told) - min(one["begun"] for one in told)
    if which != "bare":
        require_done(brokers, name)
    return wall_s / num, sum(one["cpu_s"] for one in told) / num


def require_done(brokers: str, name: str) -> None:
    """All that was read is committed, and every session has its trajectory."""
    log = KafkaLog(configured(Path(), brokers).log, client_id="bench")
    assert not any(log.lag(name, [topic.name for topic in READ]).values())
    assert sum(log.ends(topics.TRAJECTORIES.name).values()) == NUM_SESSIONS
    log.close()


def compare(advance: Callable[[], None], rounds: int = ROUNDS) -> dict[str, float | None]:
    """The rates of all sides, medians over rounds, and the stage's in shares of the bare loop's."""
    seconds: dict[str, list[tuple[float, float]]] = {which: [] for which in SIDES}
    with TemporaryDirectory() as given:
        folder = Path(given)
        with running_broker(folder) as (brokers, process):
            config = configured(folder, brokers)
            num = produce(config)
            gc.collect()
            for number in range(rounds):
                for which in SIDES if number % 2 else reversed(SIDES):
                    empty(config)
                    come_to_rest(process)
                    seconds[which].append(run(which, brokers, f"{which}-{number}", num))
                    advance()
    return figures(seconds, NUM_SESSIONS * NUM_TURNS / num)


def figures(seconds: dict[str, list[tuple[float, float]]], share: float) -> dict[str, float | None]:
    """Of seconds for a message, of which `share` are traces."""
    rates = {which: [share / wall_s for wall_s, _ in found] for which, found in seconds.items()}
    told: dict[str, float | None] = {}
    for which, found in seconds.items():
        told[f"{which}_traces_per_s"] = round(statistics.median(rates[which]))
        told[f"{which}_cpu_us_per_trace"] = round(statistics.median(1e6 * cpu_s / share for _, cpu_s in found))
    for which, name in (("stage", "rate_ratio"), ("pair", "rate_ratio_of_two")):
        ratios = [one / bare for one, bare in zip(rates[which], rates["bare"], strict=True)]
        told |= {name: round(statistics.median(ratios), 4)}
        told |= {f"{name}_low": round(min(ratios), 4), f"{name}_high": round(max(ratios), 4)}
    return told


def apart(program: str, *asked: str) -> dict[str, float]:
    """What a program of this folder says on its last line, run in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name(program)), *asked]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    told: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    which, brokers, name, num_messages = sys.argv[1:]
    print(json.dumps(side(which, brokers, name, int(num_messages))))
