"""What the lake has of a user: which traces, of which sessions, and how they ended. Content is not opened."""

import re
from collections.abc import Iterator

import polars as pl

from ingest.lake.manifest import Table
from ingest.lake.table import Lake
from ingest.privacy.pseudonyms import subject_of


def touched(lake: Lake, user: str) -> Iterator[tuple[str, str, str | None, int | None]]:
    """Session key, id, and the fate's kind and version if there is one, of each trace of the user of that pseudonym.

    Raises:
        LakeError: the lake cannot be read.
    """
    snapshot = lake.refresh()
    is_sealed_for = pl.col("subject").str.contains(f"(^| ){re.escape(subject_of(user, ''))}(/| |$)")
    is_theirs = (pl.col("user") == user) | is_sealed_for.fill_null(False)  # a session of several names one user
    turns = lake.scan(Table.TURNS, snapshot.of(Table.TURNS)).filter(is_theirs)
    named = turns.select("session_key", "trace_id").unique().collect()
    fates = lake.scan(Table.FATES, snapshot.of(Table.FATES)).select("trace_id", fate="kind", trained_in="version")
    theirs = fates.filter(pl.col("trace_id").is_in(named["trace_id"].implode())).unique().collect()
    yield from named.join(theirs, on="trace_id", how="left").iter_rows()
