"""Bytes on the log per session: the release before against this one, each side made by its own code.

record bytes   key, value and headers of every record, as they are handed to the producer
unsealed       the same with `privacy.seal: false`; all other figures are of sealed records, as is the default
alone          record batches of one record each, after the producer's compression: a quiet log
full           record batches as full as they get, sessions side by side: the busiest log
"""

import base64
import json
import os
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import bench
from drawn import Drawn, sessions
from kafka import KafkaProducer
from kafka.partitioner.default import murmur2
from kafka.record import MemoryRecordsBuilder

from ingest.log import kafka_log

BEFORE = "ff6087d"
TURNS = (1, 5, 20)
TOPICS = ("traces", "trajectories", "rewards", "fates", "feedback")
NUM_SESSIONS = 200
PARTITIONS = 4
ZSTD = 4
BATCH_BYTES = kafka_log._BATCH_BYTES


@dataclass(frozen=True)
class Written:
    """A record as it goes to the producer, and when."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    at: float

    @property
    def num_bytes(self) -> int:
        return len(self.key) + len(self.value) + sum(len(name) + len(value) for name, value in self.headers)


def compare(advance: Callable[[], None]) -> dict[str, float | None]:
    """Bytes per session on both sides, for each length of session."""
    figures: dict[str, float | None] = {}
    with TemporaryDirectory() as folder:
        _release_before(Path(folder))
        for num_turns in TURNS:
            drawn = list(sessions(NUM_SESSIONS, num_turns))
            before, now = made(Path(folder), drawn), made(bench.ROOT, drawn, "sealed")
            figures |= _figures(num_turns, before, now)
            open_bytes = _plain(made(bench.ROOT, drawn)) / NUM_SESSIONS
            figures[f"unsealed_bytes_now_{num_turns}"] = round(open_bytes)
            figures[f"unsealed_bytes_ratio_{num_turns}"] = round(open_bytes * NUM_SESSIONS / _plain(before), 4)
            advance()
    return figures


def _figures(num_turns: int, before: Sequence[Written], now: Sequence[Written]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    ways = {"bytes": _plain, "alone_bytes": _alone, "full_bytes": _full}
    for name, weigh in ways.items():
        old, new = weigh(before) / NUM_SESSIONS, weigh(now) / NUM_SESSIONS
        found |= {f"{name}_before_{num_turns}": round(old), f"{name}_now_{num_turns}": round(new)}
        found[f"{name}_ratio_{num_turns}"] = round(new / old, 4)
    for topic in TOPICS:
        old, new = (_plain([one for one in made if one.topic == topic]) / NUM_SESSIONS for made in (before, now))
        found |= {f"{topic}_before_{num_turns}": round(old), f"{topic}_now_{num_turns}": round(new)}
    return found


def _plain(written: Sequence[Written]) -> int:
    return sum(one.num_bytes for one in written)


def _alone(written: Sequence[Written]) -> int:
    return sum(_batch([one]) for one in written)


def _full(written: Sequence[Written]) -> int:
    """Each partition's records in the order of their time, cut where the producer's batches are full."""
    lanes: dict[tuple[str, int], list[Written]] = defaultdict(list)
    for one in sorted(written, key=lambda one: one.at):
        lanes[one.topic, (murmur2(one.key) & 0x7FFFFFFF) % PARTITIONS].append(one)
    return sum(_batch(batch) for lane in lanes.values() for batch in _cut(lane))


def _cut(lane: Iterable[Written]) -> Iterator[list[Written]]:
    batch: list[Written] = []
    builder = _builder()
    for one in lane:
        if batch and not _append(builder, one):
            yield batch
            batch, builder = [], _builder()
            _append(builder, one)
        elif not batch:
            _append(builder, one)
        batch.append(one)
    if batch:
        yield batch


def _batch(batch: Iterable[Written]) -> int:
    """Bytes of a record batch with these records, compressed as the producer does it."""
    builder = _builder()
    for one in batch:
        _append(builder, one)
    builder.close()
    return len(builder.buffer())


def _builder() -> MemoryRecordsBuilder:
    assert KafkaProducer._COMPRESSORS["zstd"][1] == ZSTD
    return MemoryRecordsBuilder(magic=2, compression_type=ZSTD, batch_size=BATCH_BYTES)


def _append(builder: MemoryRecordsBuilder, one: Written) -> bool:
    return builder.append(int(one.at * 1000), one.key, one.value, one.headers) is not None


# -- the sides


def _release_before(folder: Path) -> None:
    """The code of the release before, as it was committed."""
    packed = subprocess.run(["git", "archive", BEFORE], cwd=bench.ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as tree:
        tree.extractall(folder, filter="data")


def made(root: Path, drawn: Sequence[Drawn], *asked: str) -> list[Written]:
    """The records that the release in `root` makes of sessions; `asked` is what `record.py` is told."""
    lines = "\n".join(json.dumps(session) for session in drawn)
    environ = os.environ | {"PYTHONPATH": str(root)}
    program = [sys.executable, str(Path(__file__).with_name("record.py")), *asked]
    answer = subprocess.run(program, input=lines, env=environ, cwd=root, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-2000:]
    return [_read(line) for line in answer.stdout.splitlines()]


def _read(line: str) -> Written:
    topic, key, value, headers, at = json.loads(line)
    packed = [(name, text.encode()) for name, text in headers.items()]
    return Written(topic, key.encode(), base64.b64decode(value), packed, at)
