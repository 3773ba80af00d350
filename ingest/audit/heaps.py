"""Facts on this machine's disk, in heaps by their session's key: what is known of a session is in one heap.

Below a folder of the audit's own, in the machine's folder for temporary files (`TMPDIR`):

    <heap>/<writer>   lines of facts, each a JSON array of rows

A million traces take about 300 MB. The folder goes when the audit ends, in whatever way it can notice; what an audit
that was killed has left goes with the next one.
"""

import fcntl
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.errors import StoreError
from ingest.audit import facts
from ingest.audit.facts import Fact

PER_HEAP = 20_000  # traces: some 25 MB of facts in memory while they are accounted for
MAX_HEAPS = 2048  # beyond 40 million traces heaps grow, and memory with them
_HELD = 16_384  # facts a writer holds, of all heaps
_PREFIX = "onstream-audit-"
_LOCK = "lock"
_YOUNG_S = 60.0  # between making a folder and locking it


def how_many(num_traces: int) -> int:
    """Heaps for so many traces."""
    return min(max(1, -(-num_traces // PER_HEAP)), MAX_HEAPS)


def of_key(key: str, num_heaps: int) -> int:
    """The heap of a session, in every process the same."""
    return zlib.crc32(key.encode()) % num_heaps


class Writer:
    """Lays facts into heaps. Writers of one folder have names that sort as their facts are to be read."""

    def __init__(self, folder: Path, num_heaps: int, name: str) -> None:
        self._folder, self._num_heaps, self._name = folder, num_heaps, name
        self._rows: dict[int, list[tuple[object, ...]]] = {}
        self._num = 0

    def add(self, fact: Fact) -> None:
        heap = of_key(fact.key, self._num_heaps)
        self._rows.setdefault(heap, []).append(facts.row(fact))
        self._num += 1
        if self._num >= _HELD:
            self.flush()

    def flush(self) -> None:
        """Write down what is held. Raises `StoreError`."""
        try:
            for heap, rows in self._rows.items():
                self._append(_heap(self._folder, heap), rows)
        except OSError as exc:
            raise StoreError(f"audit: {self._folder} (`TMPDIR` says where): {exc}") from exc
        self._rows, self._num = {}, 0

    def _append(self, path: Path, rows: list[tuple[object, ...]]) -> None:
        path.mkdir(exist_ok=True)
        with (path / self._name).open("a") as file:
            file.write(json.dumps(rows, separators=(",", ":")) + "\n")


def read(folder: Path, heap: int) -> Iterator[Fact]:
    """The facts of a heap, writer by writer, each in its order."""
    path = _heap(folder, heap)
    for file in sorted(path.iterdir()) if path.is_dir() else ():
        with file.open() as lines:
            for line in lines:
                for values in json.loads(line):
                    yield facts.of_row(values)


def _heap(folder: Path, heap: int) -> Path:
    return folder / f"{heap:04d}"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for heaps, for a while. It is locked as long as its process lives."""
    above = Path(tempfile.gettempdir())
    _sweep(above)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=above))
    try:
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder)


def _sweep(above: Path) -> None:
    """Remove what processes that were killed have left."""
    for folder in above.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is in use, another user's, or was removed meanwhile
            state = folder.lstat()
            if state.st_uid != os.getuid() or time.time() - state.st_mtime < _YOUNG_S:
                continue
            with (folder / _LOCK).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
