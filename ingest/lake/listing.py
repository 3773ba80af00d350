"""Turns that meet filters, in the order of time, with their fates and rewards; read no further than is asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from ingest.lake import conditions
from ingest.lake.content import Content
from ingest.lake.filters import Filters
from ingest.lake.manifest import Table
from ingest.lake.reading import CONTENT, Reading

COLUMNS = (
    "at", "trace_id", "session_id", "session_key", "tenant", "user", "kind", "versions", "num_tokens",
    "num_tool_calls", "status", "finish_reason",
)  # fmt: skip

_SKEW_S = 3600.0


@dataclass(frozen=True)
class Page:
    """One page of turns, newest first, and whether there are more."""

    turns: pl.DataFrame
    has_more: bool


def page(reading: Reading, filters: Filters, limit: int, number: int = 1, *, with_content: bool = False) -> Page:
    """Page `number`, from 1, of `limit` turns."""
    first, found, num = (number - 1) * limit, list[pl.DataFrame](), 0
    for frame in matching(reading, filters, COLUMNS, newest_first=True):
        found.append(frame.drop(CONTENT, strict=False))
        num += frame.height
        if num > first + limit:
            break
    turns = pl.concat(found).slice(first, limit) if found else _none(reading)
    if not filters.asks_outcome:
        turns = with_outcomes(reading, turns)
    if with_content and turns.height:
        since, until = _ends(turns)
        turns = reading.with_content(turns, reading.files(Table.TURNS, since, until, filters.tenant))
    return Page(turns, num > first + limit)


def _none(reading: Reading) -> pl.DataFrame:
    return reading.rows(Table.TURNS, []).select(COLUMNS).collect()


def matching(
    reading: Reading,
    filters: Filters,
    columns: Sequence[str],
    *,
    newest_first: bool,
    advance: Callable[[int], None] = lambda _num: None,
) -> Iterator[pl.DataFrame]:
    """Frames of turns with some columns, one after the other in time. With filters by outcome, and only then, they have
    `fate`, `fate_version` and `reward`; with a filter by text, the columns of their content. `advance` is told how
    many turns were looked at.
    """
    wanted = [*columns, *(name for name in CONTENT if filters.text is not None and name not in columns)]
    files = reading.files(Table.TURNS, filters.since, filters.until, filters.tenant)
    for frame in reading.runs(Table.TURNS, files, wanted, newest_first=newest_first):
        found = frame.filter(conditions.of_turn(filters))
        if filters.asks_outcome:
            found = with_outcomes(reading, found).filter(conditions.of_outcome(filters))
        if filters.text is not None:
            contents = reading.contents(found)
            found = found.filter(pl.Series([says(content, filters.text) for content in contents], dtype=pl.Boolean))
        if found.height:
            yield found
        advance(frame.height)


def says(content: Content | None, text: str) -> bool:
    """Whether someone wrote `text`, given in small letters. What is erased says nothing."""
    if content is None:
        return False
    told = content.text
    calls = [*told["tool_calls"], *(call for one in told["messages"] for call in one.get("tool_calls", ()))]
    written = [told["reply"], *(one["text"] for one in told["messages"])]
    written += [f"{call['name']} {call['arguments']}" for call in calls]
    return any(text in one.casefold() for one in written)


def with_outcomes(reading: Reading, turns: pl.DataFrame) -> pl.DataFrame:
    """Turns with `fate`, `fate_version` and `reward`: the turn's own, by the newest score of its session."""
    if not turns.height:
        return turns.with_columns(
            fate=pl.lit(None, pl.String), fate_version=pl.lit(None, pl.Int64), reward=pl.lit(None, pl.Float64)
        )
    since = _ends(turns)[0] - _SKEW_S  # a trace ends, and is scored, after it was served, by another clock perhaps
    ids, sessions = turns["trace_id"].to_list(), turns["session_key"].unique().to_list()
    fates = reading.rows(Table.FATES, reading.files(Table.FATES, since), pl.col("trace_id").is_in(ids))
    is_own = pl.col("session_key").is_in(sessions)
    rewards = reading.rows(Table.REWARDS, reading.files(Table.REWARDS, since), is_own)
    scored = (
        rewards.select("at", "turns").explode("turns").unnest("turns").sort("at").unique(subset="trace_id", keep="last")
    )
    ended = fates.select("trace_id", fate="kind", fate_version="version").collect()
    values = scored.select("trace_id", reward="value").collect()
    joined = turns.join(ended, on="trace_id", how="left", maintain_order="left")
    return joined.join(values, on="trace_id", how="left", maintain_order="left")


def _ends(turns: pl.DataFrame) -> tuple[float, float]:
    """The time of the first turn, and one just after that of the last, in Unix seconds."""
    at = turns["at"].dt.timestamp("us")
    first, last = at.min(), at.max()
    assert isinstance(first, int) and isinstance(last, int)
    return first / 1e6, (last + 1) / 1e6
