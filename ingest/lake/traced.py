"""What the lake has of one trace: whether its content can be opened, and how it ended."""

import polars as pl

from ingest.lake.manifest import Table
from ingest.lake.reading import CONTENT, Reading
from ingest.records.events import Fate, FateKind


def traced(reading: Reading, trace_id: str) -> tuple[bool, Fate | None] | None:
    """Whether it is readable, and its fate, if there is one; `None` where the lake has nothing of it.

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
        fate = Fate(trace_ids=(trace_id,), kind=FateKind(kind), version=version, reason=reason, at=at.timestamp())
        return is_readable, fate
    return is_readable, None
