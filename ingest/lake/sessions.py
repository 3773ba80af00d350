"""Whole sessions out of the lake, one after the other in time: what was said, what people thought of it, its reward.

First a table of which sessions there are, a hundred bytes each; then their rows, some thousand turns at a time, so that
a million turns need no more memory than a few thousand.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from ingest.lake import conditions
from ingest.lake.content import Content
from ingest.lake.filters import Filters
from ingest.lake.manifest import Table
from ingest.lake.reading import Reading

_TURNS_AT_ONCE = 4_000
_SKEW_S = 86_400.0  # clocks differ, and feedback may come before its session's first trace

Values = dict[str, Any]
"""A row, by column."""

Opened = tuple[Values, Content | None]
"""A row without its content, and that; none where it is erased, or there never was any."""


@dataclass(frozen=True)
class SessionRows:
    """A session as it was told last. `reward` is the newest under any spec; none where the lake has none.

    `turns` stand as they began; `feedback` is what names one of them, or the session while this was its newest
    trajectory, in the order of time.
    """

    row: Values
    turns: tuple[Opened, ...]
    feedback: tuple[Opened, ...]
    reward: Values | None


def pick(reading: Reading, filters: Filters, limit: int | None = None, *, is_sample: bool = False) -> pl.DataFrame:
    """Which sessions began in `filters`' range, oldest first; `limit` are the newest, or drawn evenly with `is_sample`.
    Replays are left out: nobody had them.

    The columns are those of `sessions` without its JSON; `preceding` and `following`, when the trajectories of the same
    session before and after it began; `reward_at` and `reward_spec` of its newest reward; `feedback_from` and
    `feedback_to`, the times of its session's feedback.
    """
    files = reading.files(Table.SESSIONS, filters.since, filters.until, filters.tenant)
    told = reading.rows(Table.SESSIONS, files, conditions.of_turn(filters)).drop("chains")
    sessions = told.filter(pl.col("replay_of").is_null()).collect()
    others = pl.col("at").shift(1), pl.col("at").shift(-1)
    sessions = sessions.with_columns(preceding=others[0].over("session_key"), following=others[1].over("session_key"))
    if limit is not None and limit < sessions.height:
        drawn = sorted(random.Random(0).sample(range(sessions.height), limit))  # noqa: S311 - nobody is to be surprised
        sessions = sessions[drawn] if is_sample else sessions.tail(limit)
    if not sessions.height:
        return _with_outcomes(sessions, *(reading.rows(t, []).collect() for t in (Table.REWARDS, Table.FEEDBACK)))
    since = _seconds(sessions["at"].min()) - _SKEW_S
    outcomes = {
        table: reading.rows(table, reading.files(table, since, None, filters.tenant)).select(columns).collect()
        for table, columns in (
            (Table.REWARDS, ("first_trajectory_id", "spec", "revision", "at", "offset")),
            (Table.FEEDBACK, ("session_key", "at")),
        )
    }
    return _with_outcomes(sessions, outcomes[Table.REWARDS], outcomes[Table.FEEDBACK])


def _with_outcomes(sessions: pl.DataFrame, rewards: pl.DataFrame, feedback: pl.DataFrame) -> pl.DataFrame:
    newest = rewards.sort("revision", "at", "offset").unique("first_trajectory_id", keep="last")
    newest = newest.select("first_trajectory_id", reward_at="at", reward_spec="spec")
    ends = feedback.group_by("session_key").agg(feedback_from=pl.col("at").min(), feedback_to=pl.col("at").max())
    joined = sessions.join(newest, on="first_trajectory_id", how="left", maintain_order="left")
    return joined.join(ends, on="session_key", how="left", maintain_order="left")


def stream(reading: Reading, picked: pl.DataFrame) -> Iterator[list[SessionRows]]:
    """The rows of picked sessions, some at a time, in their order."""
    begin = num = 0
    for end, num_turns in enumerate(picked["num_turns"], start=1):
        num += num_turns
        if num >= _TURNS_AT_ONCE or end == picked.height:
            yield _whole(reading, picked[begin:end])
            begin, num = end, 0


def _whole(reading: Reading, picked: pl.DataFrame) -> list[SessionRows]:
    names, keys = picked["trajectory_id"].to_list(), picked["session_key"].unique().to_list()
    is_own = pl.col("trajectory_id").is_in(names)
    since, until = _seconds(picked["at"].min()) - _SKEW_S, _seconds(picked["closed_at"].max()) + _SKEW_S
    told = reading.rows(Table.SESSIONS, _files(reading, Table.SESSIONS, picked["at"], picked["at"]), is_own)
    chains = dict(told.select("trajectory_id", "chains").collect().iter_rows())
    turns: dict[str, list[Opened]] = {name: [] for name in names}
    rows = reading.rows(Table.TURNS, reading.files(Table.TURNS, since, until), is_own).sort("number").collect()
    for row, content in _opened(reading, rows):
        turns[row["trajectory_id"]].append((row, content))
    feedback: dict[str, list[Opened]] = {key: [] for key in keys}
    files = _files(reading, Table.FEEDBACK, picked["feedback_from"], picked["feedback_to"])
    rows = reading.rows(Table.FEEDBACK, files, pl.col("session_key").is_in(keys)).collect()
    for row, content in _opened(reading, rows):
        feedback[row["session_key"]].append((row, content))
    rewards = _rewards(reading, picked)
    found = []
    for row in picked.iter_rows(named=True):
        name = row["trajectory_id"]
        said = tuple(one for one in feedback[row["session_key"]] if _is_about(one[0], row, turns[name]))
        reward = rewards.get(row["first_trajectory_id"])
        found.append(SessionRows(row | {"chains": chains[name]}, tuple(turns[name]), said, reward))
    return found


def _rewards(reading: Reading, picked: pl.DataFrame) -> dict[str, Values]:
    files = _files(reading, Table.REWARDS, picked["reward_at"], picked["reward_at"])
    wanted = pl.col("session_key").is_in(picked["session_key"].unique().to_list())
    rows = reading.rows(Table.REWARDS, files, wanted).collect()
    own = rows.join(picked.select("first_trajectory_id", spec="reward_spec"), on=("first_trajectory_id", "spec"))
    return {row["first_trajectory_id"]: row for row in own.iter_rows(named=True)}


def _is_about(feedback: Values, session: Values, turns: list[Opened]) -> bool:
    """Whether it belongs to this trajectory, and not to another of the same session."""
    if feedback["trace_id"]:
        return any(row["trace_id"] == feedback["trace_id"] for row, _ in turns)
    preceding, following, at = session["preceding"], session["following"], feedback["at"]
    return (preceding is None or at >= session["at"]) and (following is None or at < following)


def _files(reading: Reading, table: Table, begins: pl.Series, ends: pl.Series) -> list[Any]:
    """Files of a table that may have rows between two times; none where there is no time."""
    first, last = begins.min(), ends.max()
    return [] if first is None else reading.files(table, _seconds(first) - 1.0, _seconds(last) + 1.0)


def _opened(reading: Reading, rows: pl.DataFrame) -> Iterator[Opened]:
    return zip(rows.drop("content").iter_rows(named=True), reading.contents(rows), strict=True)


def _seconds(at: object) -> float:
    assert isinstance(at, datetime)
    return at.timestamp()
