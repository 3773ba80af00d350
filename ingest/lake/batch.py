"""Rows in memory on their way into the lake."""

from collections import defaultdict
from collections.abc import Iterable

import polars as pl

from ingest.lake.manifest import DataFile, day_of, folder_name
from ingest.lake.rows import TableRow
from ingest.lake.schema import frame
from ingest.lake.table import Lake


class Batch:
    """Rows by table, day and tenant."""

    def __init__(self) -> None:
        self._rows: dict[str, list[TableRow]] = defaultdict(list)
        self.num_rows = 0

    def add(self, rows: Iterable[TableRow]) -> None:
        for row in rows:
            group = f"{row.table.value}/day={day_of(row.values['at'])}/tenant={folder_name(row.tenant)}"
            self._rows[group].append(row)
            self.num_rows += 1

    def write(self, lake: Lake) -> tuple[DataFile, ...]:
        """A data file for each table, day and tenant. Raises `LakeError`."""
        return tuple(lake.write(group, _frame(rows)) for group, rows in sorted(self._rows.items()))


def _frame(rows: list[TableRow]) -> pl.DataFrame:
    return frame(rows[0].table, (row.values for row in rows))
