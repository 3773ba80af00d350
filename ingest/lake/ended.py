"""How many traces ended how, and when: the lake's fates, counted."""

from collections.abc import Iterator
from datetime import datetime

import polars as pl

from ingest.lake.manifest import Table
from ingest.lake.reading import Reading


def ended(reading: Reading) -> Iterator[tuple[float, str, int | None, str, int]]:
    """(Unix time, kind, version, reason without what it is about, number of traces); each trace once, at its last fate.

    Fates of one batch have one time, so these are few, however many traces there are.
    """
    reason = pl.col("reason").str.splitn(":", 2).struct.field("field_0")
    told = reading.rows(Table.FATES).select("at", "kind", "version", reason=reason)
    counted = told.group_by("at", "kind", "version", "reason").len().sort("at", "kind", "reason").collect()
    for at, kind, version, why, num in counted.iter_rows():
        assert isinstance(at, datetime)
        yield at.timestamp(), kind, version, why, num
