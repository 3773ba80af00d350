"""What the lake's commits say, as values: pure, and all that a reader must know before it opens a Parquet file.

A commit is `_commits/<n>.json`: files added and removed, and the next position of topic partitions. The lake is what
all commits say, one after the other; a checkpoint, `_commits/<n>.checkpoint.json`, is what those up to `n` say.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from infra.errors import LakeError

FORMAT = 1
COMMITS = "_commits"
CHECKPOINT = ".checkpoint"
_MAX_NAME = 100  # of a tenant's folder: file systems take 255 bytes

Where = tuple[str, int]
"""(topic, partition)."""


class Table(StrEnum):
    """The tables."""

    SESSIONS = "sessions"
    TURNS = "turns"
    FEEDBACK = "feedback"
    REWARDS = "rewards"
    FATES = "fates"
    RELEASES = "releases"


def day_of(at: float) -> str:
    """The day, in UTC, of a Unix time: `2026-11-25`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def folder_name(tenant: str) -> str:
    """A tenant as part of a path: percent-encoded; a long one is cut and ended by its digest."""
    name = quote(tenant, safe="")
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[: _MAX_NAME // 2]}~{hashlib.blake2b(tenant.encode(), digest_size=12).hexdigest()}"


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file. `path` is `<table>/day=<day>/tenant=<tenant>/<name>.parquet`, `begins_at` and `ends_at` are the
    times, in Unix seconds, of its first and last row."""

    path: str
    num_rows: int
    num_bytes: int
    begins_at: float
    ends_at: float

    @property
    def table(self) -> Table:
        return Table(self.path.partition("/")[0])

    @property
    def day(self) -> str:
        return self.path.split("/")[1].removeprefix("day=")

    @property
    def tenant(self) -> str:
        """As `folder_name` gives it."""
        return self.path.split("/")[2].removeprefix("tenant=")

    @property
    def group(self) -> str:
        """Table, day and tenant: what compaction joins."""
        return self.path.rpartition("/")[0]


@dataclass(frozen=True)
class Change:
    """What a commit would do, and what it takes for granted.

    It applies while every file in `removed` is part of the lake and every partition's position is `since`'s, where
    none means that the lake has no position of it.
    """

    added: tuple[DataFile, ...] = ()
    removed: tuple[str, ...] = ()
    since: Mapping[Where, int | None] = field(default_factory=dict)
    positions: Mapping[Where, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Commit:
    """Commit number `number`, made at `at`."""

    number: int
    at: float
    added: tuple[DataFile, ...] = ()
    removed: tuple[str, ...] = ()
    positions: Mapping[Where, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """The lake after commit `number`; before the first, it is 0.

    `gone` are files that were removed lately, and when: running readers may have them open.
    """

    number: int = 0
    files: Mapping[str, DataFile] = field(default_factory=dict)
    positions: Mapping[Where, int] = field(default_factory=dict)
    gone: Mapping[str, float] = field(default_factory=dict)

    def after(self, commits: Iterable[Commit]) -> "Snapshot":
        """This one after some more commits, which must follow it without a gap. Raises `LakeError`."""
        number, files, positions, gone = self.number, dict(self.files), dict(self.positions), dict(self.gone)
        for commit in commits:
            if commit.number != number + 1:
                raise LakeError(f"lake: commit {number + 1} must follow commit {number}, found {commit.number}")
            number = commit.number
            for path in commit.removed:
                files.pop(path, None)
                gone[path] = commit.at
            files |= {file.path: file for file in commit.added}
            positions |= commit.positions
        return Snapshot(number, files, positions, gone)

    def applies(self, change: Change) -> bool:
        """Whether what `change` takes for granted is so."""
        if any(self.positions.get(where) != position for where, position in change.since.items()):
            return False
        return all(path in self.files for path in change.removed)

    def has(self, change: Change) -> bool:
        """Whether all of `change` is so: it was committed, for the names of data files are used once."""
        is_added = all(file.path in self.files or file.path in self.gone for file in change.added)
        is_moved = all(self.positions.get(where) == position for where, position in change.positions.items())
        return is_added and is_moved and not any(path in self.files for path in change.removed)

    def of(self, table: Table) -> list[DataFile]:
        """Files of a table, newest first."""
        prefix = f"{table.value}/"
        found = [file for path, file in self.files.items() if path.startswith(prefix)]
        return sorted(found, key=lambda file: (file.ends_at, file.path), reverse=True)


def commit_path(number: int) -> str:
    return f"{COMMITS}/{number:012d}.json"


def checkpoint_path(number: int) -> str:
    return f"{COMMITS}/{number:012d}{CHECKPOINT}.json"


def numbers(names: Iterable[str]) -> tuple[list[int], list[int]]:
    """Numbers of the commits and of the checkpoints among file names, ascending."""
    commits, checkpoints = [], []
    for name in names:
        stem, _, suffix = name.partition(".")
        if stem.isdecimal() and suffix == "json":
            commits.append(int(stem))
        elif stem.isdecimal() and suffix == f"{CHECKPOINT.removeprefix('.')}.json":
            checkpoints.append(int(stem))
    return sorted(commits), sorted(checkpoints)


def encode_commit(commit: Commit) -> bytes:
    return _dump(
        number=commit.number,
        at=commit.at,
        added=[_packed(file) for file in commit.added],
        removed=list(commit.removed),
        positions=_packed_positions(commit.positions),
    )


def decode_commit(data: bytes) -> Commit:
    """Raises `LakeError` where it is no commit, or one of a newer format."""
    given = _load(data)
    try:
        added = tuple(DataFile(*file) for file in given["added"])
        positions = _unpacked_positions(given["positions"])
        return Commit(given["number"], given["at"], added, tuple(given["removed"]), positions)
    except (KeyError, TypeError, ValueError) as exc:
        raise LakeError(f"lake: a commit has {exc!r}") from exc


def encode_checkpoint(snapshot: Snapshot) -> bytes:
    return _dump(
        number=snapshot.number,
        files=[_packed(file) for file in snapshot.files.values()],
        positions=_packed_positions(snapshot.positions),
        gone=dict(snapshot.gone),
    )


def decode_checkpoint(data: bytes) -> Snapshot:
    """Raises `LakeError` where it is no checkpoint, or one of a newer format."""
    given = _load(data)
    try:
        files = {file[0]: DataFile(*file) for file in given["files"]}
        return Snapshot(given["number"], files, _unpacked_positions(given["positions"]), given["gone"])
    except (KeyError, TypeError, ValueError) as exc:
        raise LakeError(f"lake: a checkpoint has {exc!r}") from exc


def _packed(file: DataFile) -> list[Any]:
    return [file.path, file.num_rows, file.num_bytes, file.begins_at, file.ends_at]


def _packed_positions(positions: Mapping[Where, int]) -> dict[str, int]:
    return {f"{topic}/{partition}": offset for (topic, partition), offset in positions.items()}


def _unpacked_positions(given: Mapping[str, int]) -> dict[Where, int]:
    split = ((name.rpartition("/"), offset) for name, offset in given.items())
    return {(topic, int(partition)): offset for (topic, _, partition), offset in split}


def _dump(**values: Any) -> bytes:
    return json.dumps({"format": FORMAT} | values, separators=(",", ":")).encode()


def _load(data: bytes) -> dict[str, Any]:
    try:
        given = json.loads(data)
    except ValueError as exc:
        raise LakeError(f"lake: a commit must be JSON: {exc}") from exc
    if not isinstance(given, dict) or given.get("format") != FORMAT:
        got = given.get("format") if isinstance(given, dict) else type(given).__name__
        raise LakeError(f"lake: this reader knows commits of format {FORMAT}, got {got!r}; upgrade the reader")
    return given
