"""Joining many small files into few, and letting go of old days: what to do is pure, doing it is a commit each.

Files of one table, day and tenant are joined when `FAN_IN` of them are of a size, sizes being powers of `FAN_IN`: a row
is written again at most once per power. A day before yesterday, to which hardly anything comes any more, is joined
whole. Files of `FULL_ROWS` rows and more are left alone. A joined file is in the order of time and holds each thing
once, as it was told last.

A crash leaves the lake as it was before or as it is after, as every commit does (`ingest.lake.table`).
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ingest.lake.manifest import Change, DataFile, Snapshot, day_of
from ingest.lake.schema import newest
from ingest.lake.table import Lake

FAN_IN = 8
FULL_ROWS = 262_144
FULL_BYTES = 128 << 20  # of the files that are joined: they are in memory together
_SMALL_ROWS = 1_024
_DAY_S = 86_400.0

logger = logging.getLogger(__name__)


def plan(files: Iterable[DataFile], now: float) -> list[tuple[DataFile, ...]]:
    """Files that should become one, most of them first. `now` is in Unix seconds."""
    yesterday = day_of(now - _DAY_S)
    by_group: dict[str, list[DataFile]] = defaultdict(list)
    for file in files:
        if file.num_rows < FULL_ROWS:
            by_group[file.group].append(file)
    jobs = [job for _, group in sorted(by_group.items()) for job in _jobs(group, yesterday)]
    return sorted(jobs, key=len, reverse=True)


def _jobs(group: Sequence[DataFile], yesterday: str) -> Iterator[tuple[DataFile, ...]]:
    if group[0].day < yesterday:
        yield from _filled(group)
        return
    by_size: dict[int, list[DataFile]] = defaultdict(list)
    for file in group:
        by_size[_size(file)].append(file)
    for alike in by_size.values():
        if len(alike) >= FAN_IN:
            yield from _filled(alike)


def _size(file: DataFile) -> int:
    size, rows = 0, file.num_rows // _SMALL_ROWS
    while rows:
        size, rows = size + 1, rows // FAN_IN
    return size


def _filled(files: Sequence[DataFile]) -> Iterator[tuple[DataFile, ...]]:
    """Files in the order of time, in portions that are not too large to be joined in memory; none of one file."""
    portion: list[DataFile] = []
    for file in sorted(files, key=lambda file: (file.begins_at, file.path)):
        portion.append(file)
        num_rows, num_bytes = sum(f.num_rows for f in portion), sum(f.num_bytes for f in portion)
        if num_rows >= FULL_ROWS or num_bytes >= FULL_BYTES:
            if len(portion) > 1:
                yield tuple(portion)
            portion = []
    if len(portion) > 1:
        yield tuple(portion)


def join(lake: Lake, files: Sequence[DataFile]) -> bool:
    """Make one file of some of one group. False where one of them is not part of the lake any more."""
    table = files[0].table
    rows = newest(table, lake.scan(table, files)).collect()
    added = lake.write(files[0].group, rows)
    return lake.commit(Change((added,), tuple(file.path for file in files))) is not None


def expired(snapshot: Snapshot, now: float, retention_days: int) -> tuple[str, ...]:
    """Paths of files whose day was over `retention_days` days ago."""
    oldest = day_of(now - retention_days * _DAY_S)
    return tuple(path for path, file in snapshot.files.items() if file.day < oldest)


def expire(lake: Lake, now: float, retention_days: int) -> int:
    """Drop days older than `retention_days`. Returns how many files they had."""
    paths = expired(lake.refresh(), now, retention_days)
    if not paths or lake.commit(Change(removed=paths)) is None:
        return 0
    logger.info("lake: %d files of days before the last %d were dropped", len(paths), retention_days)
    return len(paths)
