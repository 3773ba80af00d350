"""Lakes on a local disk, with clocks that tests turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from lake_traffic import Traffic

from ingest.lake.batch import Batch
from ingest.lake.content import NoSeal, Sealer, Vault
from ingest.lake.manifest import Change, DataFile, Snapshot, Table, Where
from ingest.lake.reading import Reading
from ingest.lake.rows import rows_of
from ingest.lake.schema import SCHEMAS, frame
from ingest.lake.storage import Storage
from ingest.lake.table import Lake
from ingest.records.events import Record


class Clock:
    """A clock that stands still unless it is told otherwise."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A lake, and how records come into it."""

    url: str
    clock: Clock = field(default_factory=Clock)
    sealer: Sealer = field(default_factory=NoSeal)

    def __post_init__(self) -> None:
        self.lake = self.another()
        self.vault = Vault(self.sealer)
        self._offset = 0

    def another(self, every: int = 4) -> Lake:
        """Another process's view of the same lake."""
        return Lake(Storage(self.url), self.clock, checkpoint_every=every)

    def files(self, records: Sequence[Record], lake: Lake | None = None) -> tuple[DataFile, ...]:
        """Data files of some records, not part of the lake yet."""
        batch = Batch()
        for record in records:
            batch.add(tuple(rows_of(record, 0, self._offset, self.vault)))
            self._offset += 1
        return batch.write(lake or self.lake)

    def put(self, *records: Record) -> Snapshot:
        """A commit of some records."""
        snapshot = self.lake.commit(Change(self.files(records)))
        assert snapshot is not None
        return snapshot

    def fates(self, *traces: str, lake: Lake | None = None) -> DataFile:
        """A file of fates of the first day, not part of the lake yet."""
        row = dict.fromkeys(SCHEMAS[Table.FATES]) | {"kind": "trained", "reason": "", "session_key": "k"}
        rows = [row | {"at": float(n), "trace_id": name, "partition": 0, "offset": n} for n, name in enumerate(traces)]
        return (lake or self.lake).write("fates/day=1970-01-01/tenant=", frame(Table.FATES, rows))

    def move(self, position: int, since: int | None, where: Where = ("fates", 0), lake: Lake | None = None) -> bool:
        """A commit that moves one partition from `since`; whether it was made."""
        lake = lake or self.lake
        change = Change((self.fates(f"{where}-{position}", lake=lake),), (), {where: since}, {where: position})
        return lake.commit(change) is not None

    def traces(self, lake: Lake | None = None) -> list[str]:
        """Trace ids of all rows of fates, doubles and all."""
        lake = lake or self.another()
        rows: pl.DataFrame = lake.scan(Table.FATES, lake.refresh().of(Table.FATES)).collect()
        return sorted(rows["trace_id"])

    def reading(self) -> Reading:
        return Reading(self.another(), self.vault)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path / "lake"))


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    def make(**fields: Any) -> World:
        return World(str(tmp_path / "lake"), **fields)

    return make


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()
