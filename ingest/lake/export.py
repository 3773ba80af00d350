"""Turns and conversations out of the lake as JSON lines, for other tools."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from ingest.lake import listing, records, sessions
from ingest.lake.content import Content
from ingest.lake.filters import Filters
from ingest.lake.manifest import Table
from ingest.lake.reading import CONTENT, Reading
from ingest.lake.records import Lost
from ingest.lake.schema import SCHEMAS
from ingest.records.chat import conversation, line, threads
from ingest.records.events import TurnKind

Advance = Callable[[int], None]
"""Told how many turns more were looked at."""

_SESSIONS_AT_ONCE = 2_000
_SKEW_S = 3600.0  # turns have engines' times, sessions those of another clock


def num_turns(reading: Reading, filters: Filters) -> int:
    """How many turns have to be looked at, or a few more."""
    return sum(f.num_rows for f in reading.files(Table.TURNS, filters.since, filters.until, filters.tenant))


def turns(reading: Reading, filters: Filters, advance: Advance) -> Iterator[str]:
    """A JSON object for every turn that meets the filters, oldest first; erased ones say so and have no content."""
    columns = tuple(SCHEMAS[Table.TURNS])
    for frame in listing.matching(reading, filters, columns, newest_first=False, advance=advance):
        told = listing.with_outcomes(reading, frame) if not filters.asks_outcome else frame
        for row, content in zip(told.drop(CONTENT).iter_rows(named=True), reading.contents(told), strict=True):
            yield line(_turn(row, content))


def _turn(row: dict[str, Any], content: Content | None) -> dict[str, Any]:
    plain = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
    if content is None:
        return plain | {"erased": True}
    tokens = {
        "context_ids": list(content.context_ids),
        "reply_ids": list(content.reply_ids),
        "logprobs": list(content.logprobs),
    }
    return plain | {"erased": False} | dict(content.text) | tokens


def chats(reading: Reading, filters: Filters, advance: Advance) -> Iterator[str]:
    """`{"messages": [...], "tools": [...], "session_id": ...}` for every conversation with a turn that meets the
    filters: a line for each line of turns that none goes on from, so a session that was compacted or regenerated gives
    several, and side turns none. One with an erased turn in it is left out."""
    done: set[str] = set()
    columns = ("at", "trajectory_id")
    for frame in listing.matching(reading, filters, columns, newest_first=False, advance=advance):
        wanted = [name for name in frame["trajectory_id"].unique(maintain_order=True) if name not in done]
        done.update(wanted)
        for first in range(0, len(wanted), _SESSIONS_AT_ONCE):
            yield from _conversations(reading, filters, wanted[first : first + _SESSIONS_AT_ONCE])


def _conversations(reading: Reading, filters: Filters, names: list[str]) -> Iterator[str]:
    is_own = pl.col("trajectory_id").is_in(names)
    own = reading.rows(Table.SESSIONS, reading.files(Table.SESSIONS, tenant=filters.tenant), is_own)
    ends = own.select("at", "closed_at").collect()
    since, until = ends["at"].min(), ends["closed_at"].max()
    assert isinstance(since, datetime) and isinstance(until, datetime)
    begin, end = since.timestamp() - _SKEW_S, until.timestamp() + _SKEW_S
    files = reading.files(Table.TURNS, begin, end, filters.tenant)
    found = reading.rows(Table.TURNS, files, is_own).filter(pl.col("kind") != TurnKind.SIDE.value)
    rows = found.sort("number").collect()
    by_session: dict[str, list[tuple[dict[str, Any], Content | None]]] = {name: [] for name in names}
    for row, content in zip(rows.drop(CONTENT).iter_rows(named=True), reading.contents(rows), strict=True):
        by_session[row["trajectory_id"]].append((row, content))
    for told in by_session.values():
        yield from _lines_of(told)


def _lines_of(told: list[tuple[dict[str, Any], Content | None]]) -> Iterator[str]:
    """A session's conversations; none with an erased turn in it."""
    known = {row["trace_id"]: (row, content) for row, content in told}
    for thread in threads({name: row["parent"] for name, (row, _) in known.items()}):
        texts = [content.text for name in thread if (content := known[name][1]) is not None]
        if len(texts) == len(thread):
            yield line(conversation(texts) | {"session_id": known[thread[-1]][0]["session_id"]})


@dataclass
class Left:
    """Sessions that no line was written for, and why."""

    lost: Counter[Lost] = field(default_factory=Counter)
    num_unrewarded: int = 0

    def notes(self) -> list[str]:
        """What to say of them."""
        told = {
            **{f"sessions were left out, {why.value}": num for why, num in self.lost.items()},
            "sessions were left out, no reward of theirs is in the lake": self.num_unrewarded,
        }
        return [f"{num:,} {what}" for what, num in told.items() if num]


def num_sessions(reading: Reading, filters: Filters) -> int:
    """How many sessions have to be looked at, or a few more."""
    return sum(f.num_rows for f in reading.files(Table.SESSIONS, filters.since, filters.until, filters.tenant))


def trajectories(reading: Reading, filters: Filters, advance: Advance, left: Left) -> Iterator[str]:
    """A line for every session that has a reward: that, with the trajectory, tokens and log-probabilities in it, as the
    trainer has them on the log. What it takes to train on; see `trainer.offline`."""
    for rows in sessions.stream(reading, sessions.pick(reading, filters)):
        for one in rows:
            made = records.trajectory(one)
            if isinstance(made, Lost):
                left.lost[made] += 1
            elif one.reward is None:
                left.num_unrewarded += 1
            else:
                yield records.reward(one.reward, made).model_dump_json()
        advance(len(rows))
