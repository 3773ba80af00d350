"""Ids that a stage's own topic holds, and where, on this machine's disk: what was done before costs no replay.

The topic is the truth and the file a copy of what it says, up to a position in each partition. Lost, damaged or of
another layout, it is made anew from the whole topic. A record whose person was erased is known by what its message
names without a key: its session's key and its traces. Copying goes:

    1. the stage appends records to its topic, and flushes
    2. `note` copies their ids and, where they lie right behind the position, moves it: one transaction
    3. the stage commits what it read

A crash between 1 and 2 is made good by `catch_up`, which the stage calls for partitions that it is given: it copies
what lies beyond the position, whoever wrote it. Two processes may share a file: a position belongs to a partition.
"""

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple

from infra.config import Config
from infra.errors import ErasedError, NewerError, RecordError, StoreError
from ingest.log.protocol import EventLog, Message, Receipt
from ingest.log.reader import place, too_old
from ingest.log.topics import Topic
from ingest.records import codec
from ingest.records.events import AnyRecord, Source
from ingest.records.named import trace_ids_in

logger = logging.getLogger(__name__)

_LAYOUT = 1
_TABLES = """
    CREATE TABLE IF NOT EXISTS ids (id TEXT PRIMARY KEY, partition INT, offset INT, at REAL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS positions (partition INT PRIMARY KEY, next INT) WITHOUT ROWID;
"""
_PUT = """
    INSERT INTO ids VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE
    SET partition = excluded.partition, offset = excluded.offset, at = excluded.at WHERE excluded.offset >= offset
"""
_NEXT = "SELECT id FROM ids WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?"
_FIND = "SELECT id, partition, offset, at FROM ids WHERE id IN (SELECT value FROM json_each(?))"
_BEHIND_ALL = chr(0x10FFFF)
_LOOKED_AT = 2000  # called each second, all of a million sessions' ids have had their turn in an hour
_MANY = 10_000  # messages copied in one transaction


_Row = tuple[str, int, int, float]  # id, partition, offset, time


@dataclass(frozen=True)
class Entry:
    """The newest record that holds an id: where it lies on the topic, and its time."""

    source: Source
    at: float


class Named(NamedTuple):
    """A record's ids and its time: what is copied of it."""

    ids: tuple[str, ...]
    at: float


class Index(Generic[AnyRecord]):
    """The ids of a topic's records, in the file `path`. Not for use from several threads."""

    def __init__(
        self,
        path: Path,
        log: EventLog,
        topic: Topic,
        kind: type[AnyRecord],
        ids: Callable[[AnyRecord], Iterable[str]],
        at: Callable[[AnyRecord], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`ids` are a record's, `at` is its time in Unix seconds. Raises `StoreError`."""
        self._clock = clock
        self._log, self._topic, self._kind, self._ids, self._at = log, topic, kind, ids, at
        self._db = _open(path)
        self._looked_up_to = ""  # in the order of ids

    def get(self, name: str) -> Entry | None:
        """What holds an id, as far as was noted."""
        row = self._db.execute("SELECT partition, offset, at FROM ids WHERE id = ?", (name,)).fetchone()
        return None if row is None else Entry(Source(partition=row[0], offset=row[1]), row[2])

    def find(self, names: Iterable[str]) -> dict[str, Entry]:
        """As `get`, for many in one question: by id, those that something holds."""
        rows = self._db.execute(_FIND, (json.dumps(list(names)),))
        return {name: Entry(Source(partition=partition, offset=offset), at) for name, partition, offset, at in rows}

    def catch_up(self, partitions: Collection[int]) -> int:
        """Copy what the topic has beyond the positions of `partitions`. Returns how many records that were.

        Raises:
            LogError: the log is away.
            NewerError: a record is of a version newer than this process knows: what it says was done is not known.
        """
        begin = {(self._topic.name, part): next_ for part, next_ in self._positions().items() if part in partitions}
        ends = self._log.ends(self._topic.name)
        if any(begin[where] > ends.get(where[1], 0) for where in begin):
            logger.warning("%s has less than was copied of it: copying all of it anew", self._topic.name)
            begin = {}
            self._forget_all()
        num = 0
        for batch in _batches(self._log.replay(self._topic.name, begin, partitions)):
            with self._changing():
                for message in batch:
                    num += self._copy(message)
        with self._changing():
            empty = [(part, ends.get(part, 0)) for part in partitions]
            self._db.executemany("INSERT OR IGNORE INTO positions VALUES (?, ?)", empty)
        return num

    def named(self, record: AnyRecord) -> Named:
        """What `note` has to be told of a record."""
        return Named(tuple(self._ids(record)), self._at(record))

    def note(self, written: Iterable[tuple[Receipt, Named]]) -> None:
        """Copy what this process wrote itself, once the log has it."""
        rows, moved = list[_Row](), []
        for receipt, named in written:
            rows += _rows(receipt.partition, receipt.offset, named)
            moved.append((receipt.offset + 1, receipt.partition, receipt.offset))
        with self._changing():
            self._db.executemany(_PUT, rows)
            self._db.executemany("UPDATE positions SET next = ? WHERE partition = ? AND next = ?", moved)

    def forget(self, before: float) -> None:
        """Let go of ids whose records are older: among the next `_LOOKED_AT` only, so that no call takes long."""
        begin = self._looked_up_to
        row = self._db.execute(_NEXT, (begin, _LOOKED_AT)).fetchone()
        end = row[0] if row else _BEHIND_ALL
        with self._changing():
            self._db.execute("DELETE FROM ids WHERE id > ? AND id <= ? AND at < ?", (begin, end, before))
        self._looked_up_to = end if row else ""

    def close(self) -> None:
        self._db.close()

    def _positions(self) -> dict[int, int]:
        return dict(self._db.execute("SELECT partition, next FROM positions"))

    def _forget_all(self) -> None:
        with self._changing():
            self._db.execute("DELETE FROM ids")
            self._db.execute("DELETE FROM positions")

    def _copy(self, message: Message) -> bool:
        self._db.execute("REPLACE INTO positions VALUES (?, ?)", (message.partition, message.offset + 1))
        try:
            named = self.named(codec.decode(message.value, message.headers, self._kind))
        except NewerError as exc:
            raise too_old(message, exc) from exc
        except ErasedError:  # its own time is lost with it: the present keeps its ids for as long as any record's
            named = Named((message.key, *trace_ids_in(message.key, message.headers)), self._clock())
        except RecordError as exc:
            logger.warning("%s: skipped: %s", place(message), exc)
            return False
        self._db.executemany(_PUT, _rows(message.partition, message.offset, named))
        return True

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:  # whatever ends the block, half a change must not be kept
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _rows(partition: int, offset: int, named: Named) -> list[_Row]:
    return [(name, partition, offset, named.at) for name in named.ids]


def index_path(config: Config, group: str) -> Path:
    """Where a group's index lies."""
    return Path(config.log.index_dir) / f"{group}.sqlite"


def _open(path: Path) -> sqlite3.Connection:
    """The file, made anew where it is damaged or of another layout.

    Nothing is lost with it, so nothing waits for the disk: a power cut may damage it, `kill -9` does not.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _connect(path)
        except sqlite3.DatabaseError as exc:
            logger.warning("index %s: made anew: %s", path, exc)
            for name in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
                name.unlink(missing_ok=True)
            return _connect(path)
    except (OSError, sqlite3.Error) as exc:
        raise StoreError(f"index {path}: cannot be used: {exc}") from exc


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=30.0)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")
        (layout,) = db.execute("PRAGMA user_version").fetchone()
        if layout not in (0, _LAYOUT):
            raise sqlite3.DatabaseError(f"layout {layout}, this reader has {_LAYOUT}")
        db.executescript(_TABLES)
        db.execute(f"PRAGMA user_version = {_LAYOUT}")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _batches(messages: Iterable[Message]) -> Iterator[list[Message]]:
    batch: list[Message] = []
    for message in messages:
        batch.append(message)
        if len(batch) >= _MANY:
            yield batch
            batch = []
    if batch:
        yield batch
