"""Turns and conversations out of the lake as JSON lines, for other tools."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import polars as pl

from ingest.lake import listing
from ingest.lake.content import Content
from ingest.lake.filters import Filters
from ingest.lake.manifest import Table
from ingest.lake.reading import CONTENT, Reading
from ingest.lake.schema import SCHEMAS
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
            yield _line(_turn(row, content))


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
    sessions = reading.rows(Table.SESSIONS, reading.files(Table.SESSIONS, tenant=filters.tenant), is_own)
    ends = sessions.select("at", "closed_at").collect()
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
    """A session's conversations: from each turn that is no other's parent, back to where its context began."""
    known = {row["trace_id"]: (row, content) for row, content in told}
    parents = {row["parent"] for row, _ in told}
    for row, _ in told:
        if row["trace_id"] in parents:
            continue
        line, name = list[Content | None](), row["trace_id"]
        while name in known:
            above, content = known[name]
            line.append(content)
            name = above["parent"]
        contents = [content for content in reversed(line) if content is not None]
        if len(contents) == len(line):
            yield _line(_chat(contents) | {"session_id": row["session_id"]})


def _chat(contents: list[Content]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for content in contents:
        messages += [_message(message) for message in content.text["messages"]]
        reply = {"role": "assistant", "text": content.text["reply"], "tool_calls": content.text["tool_calls"]}
        messages.append(_message(reply))
    tools = next((content.text["tools"] for content in reversed(contents) if content.text["tools"]), "")
    return {"messages": messages} | ({"tools": json.loads(tools)} if tools else {})


def _message(given: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"role": given["role"], "content": given["text"]}
    if given.get("tool_calls"):
        told["tool_calls"] = [_call(call) for call in given["tool_calls"]]
    return told | ({"tool_call_id": given["call_id"]} if given.get("call_id") else {})


def _call(call: Mapping[str, str]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["call_id"], "type": "function", "function": function}


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
