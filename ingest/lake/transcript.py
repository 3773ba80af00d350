"""Everything that the lake has of one session, put in the order of its turns."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import polars as pl

from ingest.lake.content import Content
from ingest.lake.manifest import Table
from ingest.lake.reading import Reading
from ingest.records.events import key_of, session_key
from ingest.records.ids import is_trace_id, trace_of

_SKEW_S = 86_400.0  # clocks differ, and feedback may come before its session's first trace
Values = dict[str, Any]
"""A row, by column."""


@dataclass(frozen=True)
class TurnTold:
    """A turn; `content` is none where it is erased. `fate` and `reward` are none where the lake has none yet."""

    row: Values
    content: Content | None
    fate: Values | None
    reward: Values | None
    feedback: tuple[tuple[Values, Content | None], ...]


@dataclass(frozen=True)
class SessionTold:
    """A trajectory. `feedback` is about the session, or about turns that it does not have."""

    row: Values
    turns: tuple[TurnTold, ...]
    rewards: tuple[Values, ...]
    feedback: tuple[tuple[Values, Content | None], ...]


def look_up(reading: Reading, asked: str) -> tuple[SessionTold, ...]:
    """The sessions that `asked` names, oldest first: a session's id as its client gave it or as records have it, its
    key, a completion's or a trace's id, or the beginning of a trace's id that is longer than its session's key."""
    is_own = pl.col("session_key").is_in(sorted(_keys(reading, asked)))
    found = reading.rows(Table.SESSIONS, where=is_own).sort("at").collect().to_dicts()
    if not found:
        return ()
    since = min(row["at"] for row in found).timestamp() - _SKEW_S
    until = max(row["closed_at"] for row in found).timestamp() + _SKEW_S
    held = {
        table: reading.rows(
            table, reading.files(table, since, until if table is Table.TURNS else None), is_own
        ).collect()
        for table in (Table.TURNS, Table.FEEDBACK, Table.FATES, Table.REWARDS)
    }
    fates = {row["trace_id"]: row for row in held[Table.FATES].to_dicts()}
    rewards = held[Table.REWARDS].to_dicts()
    said = tuple(_opened(reading, held[Table.FEEDBACK]))
    turns = list(_opened(reading, held[Table.TURNS]))
    last = found[-1]["trajectory_id"]
    return tuple(_told(row, turns, fates, rewards, said, is_last=row["trajectory_id"] == last) for row in found)


def _keys(reading: Reading, asked: str) -> set[str]:
    tenants = {unquote(file.tenant) for file in reading.snapshot.of(Table.SESSIONS)}
    keys = {asked, session_key(asked), *(session_key(f"{tenant}/{asked}") for tenant in tenants)}
    trace = trace_of(asked)
    return {*keys, key_of(session_id=None, trace_id=trace)} if is_trace_id(trace) else keys


def _opened(reading: Reading, rows: pl.DataFrame) -> Iterator[tuple[Values, Content | None]]:
    return zip(rows.drop("content").to_dicts(), reading.contents(rows), strict=True)


def _told(
    row: Values,
    turns: Iterable[tuple[Values, Content | None]],
    fates: dict[str, Values],
    rewards: Iterable[Values],
    feedback: tuple[tuple[Values, Content | None], ...],
    *,
    is_last: bool,
) -> SessionTold:
    first = row["first_trajectory_id"]
    scores = sorted((r for r in rewards if r["first_trajectory_id"] == first), key=lambda r: r["at"])
    own = [(turn, content) for turn, content in turns if turn["trajectory_id"] == row["trajectory_id"]]
    newest = {turn["trace_id"]: turn for score in scores for turn in score["turns"]}
    known = {turn["trace_id"] for turn, _ in own}
    told = [
        TurnTold(
            turn,
            content,
            fates.get(turn["trace_id"]),
            newest.get(turn["trace_id"]),
            tuple(one for one in feedback if one[0]["trace_id"] == turn["trace_id"]),
        )
        for turn, content in sorted(own, key=lambda one: one[0]["number"])
    ]
    rest = tuple(one for one in feedback if one[0]["trace_id"] not in known) if is_last else ()
    return SessionTold(row, tuple(told), tuple(scores), rest)
