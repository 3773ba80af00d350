"""What the lake has of one trace: whether its content can be opened, and how it ended."""

import polars as pl

from ingest.lake.manifest import Table
from ingest.lake.reading import CONTENT, Reading


def traced(reading: Reading, trace_id: str) -> tuple[bool, tuple[str, int | None, str, float] | None] | None:
    """Whether it is readable, and its fate's kind, version, reason and time, if there is one; `None` for no such row.

    Raises:
        LakeError: the lake cannot be read.
        ConfigError: its keys cannot be.
    """
    is_it = pl.col("trace_id") == trace_id
    turns = reading.rows(Table.TURNS, where=is_it).select(CONTENT).collect()
    fates = reading.rows(Table.FATES, where=is_it).select("kind", "version", "reason", "at").collect()
    if not turns.height and not fates.height:
        return None
    is_readable = not turns.height or reading.contents(turns)[0] is not None
    for kind, version, reason, at in fates.iter_rows():
        return is_readable, (kind, version, reason, at.timestamp())
    return is_readable, None
