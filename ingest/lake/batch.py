"""Rows in memory on their way into the lake."""

from collections import defaultdict
from collections.abc import Sequence

import polars as pl

from ingest.lake.manifest import DataFile, day_of, folder_name
from ingest.lake.rows import TableRow
from ingest.lake.schema import check, frame
from ingest.lake.table import Lake


class Batch:
    """Rows by table, day and tenant. `num_bytes` are those of their contents."""

    def __init__(self) -> None:
        self._rows: dict[str, list[TableRow]] = defaultdict(list)
        self.num_rows = self.num_bytes = 0

    def add(self, rows: Sequence[TableRow]) -> None:
        """All rows of a record, or none. Raises `RecordError` where one of them cannot be written."""
        for row in rows:
            check(row.table, row.values)
        for row in rows:
            group = f"{row.table.value}/day={day_of(row.values['at'])}/tenant={folder_name(row.tenant)}"
            self._rows[group].append(row)
            self.num_bytes += len(row.values.get("content") or b"")
        self.num_rows += len(rows)

    def write(self, lake: Lake) -> tuple[DataFile, ...]:
        """A data file for each table, day and tenant. Raises `LakeError`."""
        return tuple(lake.write(group, _frame(rows)) for group, rows in sorted(self._rows.items()))


def _frame(rows: list[TableRow]) -> pl.DataFrame:
    return frame(rows[0].table, (row.values for row in rows))
