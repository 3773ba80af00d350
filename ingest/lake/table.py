"""The lake's tables: Parquet files that are part of the lake from the commit on that names them.

The order of a commit, numbered as in `ingest.lake.writer`, and what a crash after each step leaves:

    3. files       data files, each under a name never used before    files that nobody refers to: swept later
    4. commit      `_commits/<n>.json`, created where none is         done: files and positions moved in one step
    5. checkpoint  now and then, what all commits up to `n` say       done; the next commit writes one that is missing

Numbers have no gaps: a writer creates the one after the last that it read. Where another was quicker it reads that
one, looks whether its own change still applies (`Snapshot.applies`), and tries the next; so writers of different
partitions never lose each other's commits, and a writer whose partitions another has moved on learns it here.

Commits before the last checkpoint but one are swept, so a writer that stood still meanwhile may create a number that
was taken. No reader sees such a commit, since a checkpoint at or above it exists for ever after: who finds one once
the commit is made reads the lake again. Where its change is there, it was only overtaken; else it tries again.

A file that a commit removes stays for `GRACE_S`, for the readers that have it open. A file never committed is swept
after as long, and a change whose files are half as old is not committed any more.
"""

import io
import logging
import time
import uuid
from collections.abc import Callable, Collection
from pathlib import PurePosixPath
from typing import Any

import polars as pl

from infra.errors import LakeError
from ingest.lake.manifest import (
    CHECKPOINT,
    COMMITS,
    Change,
    Commit,
    DataFile,
    Snapshot,
    Table,
    checkpoint_path,
    commit_path,
    decode_checkpoint,
    decode_commit,
    encode_checkpoint,
    encode_commit,
    numbers,
)
from ingest.lake.schema import SCHEMAS, filled
from ingest.lake.steps import Step, Watch, unwatched
from ingest.lake.storage import Storage

GRACE_S = 3600.0  # the longest that one command may read: an export of a lake that is swept meanwhile
CHECKPOINT_EVERY = 32  # a reader opens this many small files at most
_ROWS_IN_GROUP = 16_384
_TRIES = 100

logger = logging.getLogger(__name__)


class Lake:
    """The tables below a URL. For one thread; several processes may each have one on the same URL."""

    def __init__(
        self,
        storage: Storage,
        clock: Callable[[], float] = time.time,
        watch: Watch = unwatched,
        checkpoint_every: int = CHECKPOINT_EVERY,
    ) -> None:
        self.storage, self._clock, self._watch, self._checkpoint_every = storage, clock, watch, checkpoint_every
        self._known = Snapshot()

    def refresh(self) -> Snapshot:
        """The lake as it is now. Raises `LakeError`."""
        for _ in range(_TRIES):
            commits, checkpoints = numbers(self.storage.names(COMMITS))
            base = self._base(checkpoints[-1] if checkpoints else 0)
            if base is None:
                continue
            newer = [number for number in commits if number > base.number]
            found = [commit for number in newer if (commit := self._commit(number)) is not None]
            # a listing made while others write and sweep may lack a number that it should have
            if [commit.number for commit in found] == list(range(base.number + 1, base.number + 1 + len(newer))):
                self._known = base.after(found)
                return self._known
        raise LakeError(f"lake: {self.storage.root}: no unbroken row of commits was found in {_TRIES} readings")

    def _base(self, newest: int) -> Snapshot | None:
        """What to lay commits on; none where a sweep was quicker than this reader."""
        if newest <= self._known.number:
            return self._known
        data = self.storage.read(checkpoint_path(newest))
        return None if data is None else decode_checkpoint(data)

    def _commit(self, number: int) -> Commit | None:
        data = self.storage.read(commit_path(number))
        return None if data is None else decode_commit(data)

    def write(self, group: str, rows: pl.DataFrame) -> DataFile:
        """3: a data file of some rows, in the order of time. `group` is `<table>/day=<day>/tenant=<tenant>`."""
        rows, buffer = rows.sort("at"), io.BytesIO()
        rows.write_parquet(buffer, compression="zstd", compression_level=3, row_group_size=_ROWS_IN_GROUP)
        path = f"{group}/{int(self._clock()):010d}-{uuid.uuid4().hex}.parquet"
        self.storage.put(path, buffer.getvalue())
        self._watch(Step.FILE)
        begins, ends = rows["at"].dt.timestamp("us").cast(pl.Float64)[[0, -1]] / 1e6
        return DataFile(path, rows.height, buffer.tell(), begins, ends)

    def commit(self, change: Change) -> Snapshot | None:
        """4 and 5: make a change part of the lake. None where it no longer applies: nothing of it is kept then.

        A change that is made already is not made again.

        Raises:
            LakeError: it is not known whether the change was made; `refresh` tells.
        """
        for _ in range(_TRIES):
            snapshot, now = self.refresh(), self._clock()
            if snapshot.has(change):
                return snapshot
            if not snapshot.applies(change) or any(now - _written_at(f.path) > GRACE_S / 2 for f in change.added):
                return None
            commit = Commit(snapshot.number + 1, now, change.added, change.removed, change.positions)
            if not self.storage.create(commit_path(commit.number), encode_commit(commit)):
                continue
            self._watch(Step.COMMITTED)
            _, checkpoints = numbers(self.storage.names(COMMITS))
            newest = checkpoints[-1] if checkpoints else 0
            if newest >= commit.number:
                continue
            self._known = snapshot.after([commit])
            if commit.number - newest >= self._checkpoint_every:
                self._checkpoint(self._known, now)
            return self._known
        raise LakeError(f"lake: {self.storage.root}: {_TRIES} numbers in a row were taken by other writers")

    def _checkpoint(self, snapshot: Snapshot, now: float) -> None:
        gone = {path: at for path, at in snapshot.gone.items() if now - at <= GRACE_S}
        self._known = Snapshot(snapshot.number, snapshot.files, snapshot.positions, gone)
        self.storage.replace(checkpoint_path(snapshot.number), encode_checkpoint(self._known))
        self._watch(Step.CHECKPOINTED)

    def scan(self, table: Table, files: Collection[DataFile]) -> pl.LazyFrame:
        """All rows of some files, lazily on a local disk; elsewhere whole files are read here. Columns that a file
        is too old to have are null, but see `ingest.lake.schema.filled`. Duplicates and old revisions are in it: see
        `ingest.lake.schema.newest`."""
        schema = pl.Schema(SCHEMAS[table])
        if not files:
            return pl.LazyFrame(schema=schema)
        paths = [file.path for file in files]
        sources: Any = [self.storage.full(path) if self.storage.is_local else self._bytes(path) for path in paths]
        rows = pl.scan_parquet(
            sources, schema=schema, missing_columns="insert", extra_columns="ignore", hive_partitioning=False
        )
        return filled(table, rows)

    def _bytes(self, path: str) -> io.BytesIO:
        data = self.storage.read(path)
        if data is None:
            raise LakeError(f"lake: {self.storage.full(path)}: is part of the lake, and is not there")
        return io.BytesIO(data)

    def sweep(self) -> int:
        """Delete what nobody can need any more: files outside of the lake, commits and checkpoints before the last
        checkpoint but one, parts that crashes left. Returns how many."""
        now, names = self._clock(), self.storage.names(COMMITS)
        _, checkpoints = numbers(names)
        floor = checkpoints[-2] if len(checkpoints) > 1 else 0
        everything = self.storage.everything()
        snapshot = self.refresh()  # after the listing: what was committed meanwhile is in it
        doomed = [f"{COMMITS}/{name}" for name in names if _is_before(name, floor)]
        doomed += [path for path in everything if path not in snapshot.files and _is_swept(path, snapshot, now)]
        for path in doomed:
            self.storage.remove(path)
            self._watch(Step.DELETED)
        if doomed:
            logger.info("lake: %d files that nothing refers to were deleted", len(doomed))
        return len(doomed)


def _is_before(name: str, floor: int) -> bool:
    """Whether a commit, a checkpoint or a part of one, by its file's name, is older than checkpoint `floor`."""
    number = name.partition(".")[0]
    return number.isdecimal() and (int(number) < floor or (int(number) == floor and CHECKPOINT not in name))


def _is_swept(path: str, snapshot: Snapshot, now: float) -> bool:
    """Whether a file outside of the lake may go: it was removed, or written in vain, more than `GRACE_S` ago."""
    if not path.endswith(".parquet"):
        return False
    return now - max(_written_at(path), snapshot.gone.get(path, 0.0)) > GRACE_S


def _written_at(path: str) -> float:
    """When a data file was written, in Unix seconds: its name begins with it."""
    stem = PurePosixPath(path).name.partition("-")[0]
    return float(stem) if stem.isdecimal() else 0.0
