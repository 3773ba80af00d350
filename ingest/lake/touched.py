"""What the lake has of a user: which traces, of which sessions, and how they ended. Content is not opened."""

from collections.abc import Iterator

import polars as pl

from ingest.lake.manifest import Table
from ingest.lake.table import Lake


def touched(lake: Lake, user: str) -> Iterator[tuple[str, str, str | None, int | None]]:
    """Session key, id, and the fate's kind and version if there is one, of each trace of the user of that pseudonym.

    Raises:
        LakeError: the lake cannot be read.
    """
    snapshot = lake.refresh()
    turns = lake.scan(Table.TURNS, snapshot.of(Table.TURNS)).filter(pl.col("user") == user)
    fates = lake.scan(Table.FATES, snapshot.of(Table.FATES)).select("trace_id", fate="kind", trained_in="version")
    rows = turns.select("session_key", "trace_id").unique().join(fates.unique(), on="trace_id", how="left").collect()
    yield from rows.iter_rows()
