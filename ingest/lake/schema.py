"""The columns of every table. Times are microseconds since 1970 in UTC; content is one sealed column.

`partition` and `offset` are where the record lies on its topic. What anyone wrote, and its tokens, is in `content`
(`ingest.lake.content`), sealed under `subject`'s key of generation `key_generation`; the other columns hold none of it
but the names that clients choose, of sessions and of feedback.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from infra.errors import RecordError
from ingest.lake.manifest import Table

AT = pl.Datetime("us", "UTC")
_PLACE = {"partition": pl.UInt32(), "offset": pl.UInt64()}
_SEALED = {"subject": pl.String(), "key_generation": pl.String(), "content": pl.Binary()}
_PART = pl.Struct({"name": pl.String(), "weight": pl.Float64(), "value": pl.Float64()})
_TURN_REWARD = pl.Struct({"trace_id": pl.String(), "kind": pl.String(), "value": pl.Float64(), "parts": pl.List(_PART)})
_COMPONENT = pl.Struct(
    {
        "name": pl.String(),
        "scorer": pl.String(),
        "trace_id": pl.String(),
        "value": pl.Float64(),
        "unscored": pl.String(),
    }
)

SCHEMAS: Mapping[Table, Mapping[str, pl.DataType]] = {
    Table.SESSIONS: {
        "at": AT,  # when it began
        "closed_at": AT,
        "trajectory_id": pl.String(),
        "first_trajectory_id": pl.String(),  # of its first revision: the same in all of them
        "session_id": pl.String(),
        "session_key": pl.String(),
        "parent_session_id": pl.String(),
        "tenant": pl.String(),
        "user": pl.String(),
        "revision": pl.UInt32(),
        "arm": pl.String(),
        "trial": pl.Int64(),
        "propensity": pl.Float64(),
        "held_out": pl.Boolean(),
        "replay_of": pl.String(),  # the trace that was asked again; none: somebody's own conversation
        "block": pl.Int64(),  # in which it began, where the arms of its trial took turns
        "closed": pl.String(),
        "num_turns": pl.UInt32(),
        "num_feedback": pl.UInt32(),
        "chains": pl.String(),  # JSON: how they lean on and link to one another, without tokens
        **_PLACE,
    },
    Table.TURNS: {
        "at": AT,  # when its reply was finished
        "trace_id": pl.String(),
        "trajectory_id": pl.String(),
        "session_id": pl.String(),
        "session_key": pl.String(),
        "tenant": pl.String(),
        "user": pl.String(),
        "revision": pl.UInt32(),
        "number": pl.UInt32(),  # in its session, from 1
        "kind": pl.String(),
        "parent": pl.String(),
        "arm": pl.String(),
        "trial": pl.Int64(),
        "held_out": pl.Boolean(),
        "replay_of": pl.String(),  # the trace that was asked again; none: somebody's own conversation
        "status": pl.Int64(),
        "finish_reason": pl.String(),
        "num_tokens": pl.Int64(),  # of the reply
        "took_s": pl.Float64(),  # from the request to the end of the reply
        "num_messages": pl.UInt32(),
        "num_tool_calls": pl.UInt32(),
        "versions": pl.List(pl.Int64()),
        "span_ends": pl.List(pl.UInt32()),  # versions[i] sampled the reply's tokens up to span_ends[i]
        "chain": pl.UInt32(),  # of its trajectory, from 0; none: it is part of no chain
        "chain_start": pl.UInt32(),  # its own tokens in `content` begin there, after all that the chain had before
        "altered": pl.Boolean(),  # something in it was redacted
        "consent": pl.String(),
        "trace_partition": pl.Int64(),  # where its trace lay on `traces`
        "trace_offset": pl.Int64(),
        **_PLACE,
        **_SEALED,
    },
    Table.FEEDBACK: {
        "at": AT,
        "feedback_id": pl.String(),
        "trace_id": pl.String(),
        "session_id": pl.String(),
        "session_key": pl.String(),
        "tenant": pl.String(),
        "user": pl.String(),
        "name": pl.String(),
        "value": pl.Float64(),
        **_PLACE,
        **_SEALED,  # no content: no comment
    },
    Table.REWARDS: {
        "at": AT,
        "reward_id": pl.String(),
        "trajectory_id": pl.String(),
        "first_trajectory_id": pl.String(),  # of its trajectory's first revision, as in `sessions`
        "session_id": pl.String(),
        "session_key": pl.String(),
        "tenant": pl.String(),
        "user": pl.String(),
        "revision": pl.UInt32(),
        "spec": pl.String(),
        "value": pl.Float64(),
        "has_signal": pl.Boolean(),
        "guardrails": pl.List(pl.Struct({"name": pl.String(), "value": pl.Float64()})),
        "turns": pl.List(_TURN_REWARD),
        "components": pl.List(_COMPONENT),
        **_PLACE,
    },
    Table.FATES: {
        "at": AT,
        "trace_id": pl.String(),
        "session_key": pl.String(),
        "kind": pl.String(),
        "version": pl.Int64(),
        "reason": pl.String(),
        **_PLACE,
    },
    Table.RELEASES: {
        "at": AT,
        "release": pl.Int64(),
        "epoch": pl.Int64(),
        "kind": pl.String(),
        "stable": pl.Int64(),
        "candidate": pl.Int64(),
        "state": pl.String(),
        "share": pl.Float64(),
        "engines": pl.String(),  # JSON
        "numbers": pl.String(),  # JSON
        "reason": pl.String(),
        **_PLACE,
    },
}


@dataclass(frozen=True)
class Identity:
    """Which rows are the same thing (`key`), and which of them is shown: the last by `order`."""

    key: tuple[str, ...]
    order: tuple[str, ...] = ("at", "offset")


IDENTITY: Mapping[Table, Identity] = {
    Table.SESSIONS: Identity(("first_trajectory_id",), ("revision", "offset")),
    Table.TURNS: Identity(("trace_id",), ("revision", "offset")),
    Table.FEEDBACK: Identity(("feedback_id",)),
    Table.REWARDS: Identity(("first_trajectory_id", "spec"), ("revision", "at", "offset")),
    Table.FATES: Identity(("trace_id",)),
    Table.RELEASES: Identity(("epoch", "release")),
}

Row = dict[str, Any]
_TIMES = range(-62_135_596_800, 253_402_300_800)  # seconds of the years 1 to 9999
_INTEGERS = range(-(2**63), 2**63)


def check(table: Table, row: Row) -> None:
    """Raise `RecordError` where a number of a row is none that a column can hold."""
    for name, value in row.items():
        if SCHEMAS[table][name] == AT:
            if not _TIMES.start <= value < _TIMES.stop:
                raise RecordError(f"{table}: {name} must be a time of the years 1 to 9999, got {value!r}")
        elif type(value) is int and value not in _INTEGERS:
            raise RecordError(f"{table}: {name} must have 64 bits at most, got {value}")


def frame(table: Table, rows: Iterable[Row]) -> pl.DataFrame:
    """Rows as a frame of a table's schema. `at` and other times are given in Unix seconds."""
    given, schema = list(rows), SCHEMAS[table]
    columns = {name: _column(name, kind, given) for name, kind in schema.items()}
    return pl.DataFrame(columns)


def _column(name: str, kind: pl.DataType, rows: list[Row]) -> pl.Series:
    if kind == AT:
        return pl.Series(name, [round(row[name] * 1e6) for row in rows], pl.Int64).cast(AT)
    return pl.Series(name, [row[name] for row in rows], kind)


def filled(table: Table, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows of files that are too old for the column `first_trajectory_id` are each taken for a first revision."""
    if "first_trajectory_id" not in SCHEMAS[table]:
        return rows
    return rows.with_columns(pl.col("first_trajectory_id").fill_null(pl.col("trajectory_id")))


def newest(table: Table, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Each thing once, as it was told last: duplicates and older revisions are left out. In the order of time."""
    identity = IDENTITY[table]
    latest = rows.sort(identity.order).unique(subset=identity.key, keep="last", maintain_order=False)
    return latest.sort("at", "offset", *identity.key)


def newest_of(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """As `newest`, of rows in memory: what orders them is sorted, and each row is moved once. A quarter of the time."""
    identity, place = IDENTITY[table], "_place"
    ordering = dict.fromkeys(("at", "offset", *identity.order, *identity.key))
    told = rows.select(*ordering).with_row_index(place).sort(identity.order)
    latest = told.unique(subset=identity.key, keep="last", maintain_order=False)
    return rows[latest.sort("at", "offset", *identity.key)[place]]
