"""`onstream audit` on a hundred thousand traces and on a million: time, and memory of all its processes together.

A million traces cannot be put through the small broker in a benchmark's time. So the large logs are files of messages,
made beforehand, of the bytes that the stages would write (`tests/support/traffic.py`, `file_log.py`): all that is
missing is the Kafka client. What that costs is seen on the broker itself, with fewer traces. Beside it stands the plain
way: whole records, one process, all ids in memory.

Memory is the sum of resident sets, looked at every 20 ms from outside; pages that processes share count for each.
"""

import argparse
import json
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bench
import psutil
from file_log import FileLog, Files
from ports import free_port
from rich.console import Console
from traffic import Copies

from infra.broker import command
from infra.config import LogConfig
from infra.lifecycle import Deadline
from ingest.audit.account import Account, Limits, account
from ingest.audit.books import Books
from ingest.audit.reading import STEPS, take
from ingest.audit.sources import TOPICS
from ingest.audit.telling import Teller
from ingest.log import topics
from ingest.log.kafka_log import KafkaLog
from ingest.records import codec

SMALL, LARGE, ON_BROKER, PARTITIONS = 100_000, 1_000_000, 20_000, 4
LIMITS = Limits(inactivity_s=60.0, horizon_s=300.0, retention_s=1e9)
NOW = 10_000.0
LOOK_EVERY_S = 0.02
TARGETS = {"seconds_1e6": ("<=", 60.0), "peak_ratio": ("<=", 1.3)}


@dataclass(frozen=True)
class Run:
    """One audit: wall and processor seconds, and the largest sum of resident sets in MB."""

    num_traces: int
    num_messages: int
    seconds: float
    cpu_seconds: float
    peak_mb: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--take", help="take the account of files, a broker (host:port), or of files the plain way")
    parser.add_argument("--plain", action="store_true")
    args = parser.parse_args()
    if args.take:
        print(json.dumps(asdict(taken(args.take, args.plain))))
    else:
        compare()


def compare() -> None:
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="onstream-bench-") as folder:
        console.print(f"{ON_BROKER} traces on the small broker")
        with broker(Path(folder) / "broker") as address:
            fill(address)
            client_us = client_cost_us(address)
            on_broker = measured(address)
        runs: dict[int, Run] = {}
        for num in (SMALL, LARGE):
            files = Path(folder) / str(num)
            console.print(f"{num} traces: making them")
            write(files, num)
            console.print(f"{num} traces: audit")
            runs[num] = measured(str(files))
            if num == SMALL:
                plain = measured(str(files), "--plain")
            shutil.rmtree(files)
    small, large = runs[SMALL], runs[LARGE]
    figures = {
        "seconds_1e6": large.seconds,
        "cpu_seconds_1e6": large.cpu_seconds,
        "traces_1e6": large.num_traces,
        "messages_1e6": large.num_messages,
        "peak_mb_1e6": large.peak_mb,
        "peak_mb_1e5": small.peak_mb,
        "peak_ratio": large.peak_mb / small.peak_mb,
        "seconds_1e5": small.seconds,
        "plain_seconds_1e5": plain.seconds,
        "plain_cpu_seconds_1e5": plain.cpu_seconds,
        "cpu_seconds_1e5": small.cpu_seconds,
        "plain_peak_mb_1e5": plain.peak_mb,
        "broker_messages_per_s": on_broker.num_messages / on_broker.seconds,
        "client_cpu_us_per_message": client_us,
        "broker_traces": on_broker.num_traces,
    }
    bench.report("audit", figures, TARGETS)


def write(folder: Path, num_traces: int) -> None:
    files = Files(folder, PARTITIONS)
    for one in Copies().of(num_traces):
        files.append(one.topic, one.key, one.value, one.headers)
    files.close()


def fill(address: str) -> None:
    log = KafkaLog(LogConfig(brokers=address, timeout_s=30.0), "bench")
    log.create(topics.specs(PARTITIONS, 1e6))
    for number, one in enumerate(Copies().of(ON_BROKER)):
        log.append(one.topic, one.key, one.value, one.headers)
        if number % 5000 == 0:
            log.flush(60.0)
    log.flush(60.0)
    log.close()


def open_broker(address: str) -> KafkaLog:
    return KafkaLog(LogConfig(brokers=address, timeout_s=30.0), "bench")


def client_cost_us(address: str) -> float:
    """Processor time of reading a message, and nothing else."""
    log = open_broker(address)
    begun = time.process_time()
    num = sum(1 for name in TOPICS for _ in log.replay(name))
    spent = time.process_time() - begun
    log.close()
    return spent / num * 1e6


def taken(where: str, is_plain: bool) -> Run:
    """In a process of its own: take the account of files below a folder, or of a broker."""
    open_log: Callable[[], Any] = partial(FileLog, Path(where)) if Path(where).is_dir() else partial(open_broker, where)
    begun, log = time.perf_counter(), open_log()
    found = in_one_pass(log) if is_plain else take(log, LIMITS, NOW, open_log)
    seconds = time.perf_counter() - begun
    num_messages = sum(sum(log.ends(name).values()) for name in TOPICS)
    log.close()
    assert found.is_complete(), found.as_json()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_seconds = sum(one.ru_utime + one.ru_stime for one in used)
    return Run(found.num_traces, num_messages, seconds, cpu_seconds)


def in_one_pass(log: Any) -> Account:
    books = Books()
    for name in (name for step in STEPS for name in step):
        teller = Teller(name)
        for message in log.replay(name):
            if name in TOPICS:
                codec.decode(message.value, message.headers, TOPICS[name].record)
            for fact in teller.facts(message):
                books.add(fact)
    return account(books, LIMITS, NOW)


def measured(where: str, *more: str) -> Run:
    argv = [sys.executable, __file__, "--take", where, *more]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        peak = Peak(psutil.Process(child.pid))
        assert child.stdout is not None
        told = child.stdout.read()
        peak.stop()
    assert child.returncode == 0, told
    return Run(**json.loads(told) | {"peak_mb": peak.peak_bytes / 1e6})


class Peak:
    """Looks at a process and what it started, until it is stopped."""

    def __init__(self, process: psutil.Process) -> None:
        self.peak_bytes = 0
        self._process, self._stop = process, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            self.peak_bytes = max(self.peak_bytes, resident_bytes(self._process))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def resident_bytes(process: psutil.Process) -> int:
    total = 0
    try:
        everyone = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for one in everyone:
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    folder.mkdir()
    port = free_port()
    with (folder / "broker.log").open("ab") as told:
        process = subprocess.Popen(command(folder / "data", "127.0.0.1", port), stdout=told, stderr=told)
    try:
        deadline = Deadline.after(30.0)
        while not listens(port):
            assert process.poll() is None, "the broker ended"
            assert not deadline.passed(), "no broker"
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
