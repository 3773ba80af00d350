"""SQL over the lake's tables, by polars."""

import json
import re
from collections.abc import Sequence

import polars as pl
from polars.exceptions import PolarsError

from infra.errors import ConfigError
from ingest.lake.content import Content
from ingest.lake.manifest import Table
from ingest.lake.reading import CONTENT, Reading

TEXTS = {
    Table.TURNS: ("messages", "context", "reply", "followup", "tool_calls", "tools"),
    Table.FEEDBACK: ("comment",),
}
_WORD = re.compile(r"\w+")


def sql(reading: Reading, query: str) -> pl.DataFrame:
    """What a SELECT over the tables gives. Its words decide what is opened: `reply` opens contents, which takes time.

    Raises:
        ConfigError: the query is not one, or names what is not there.
    """
    words = {word.casefold() for word in _WORD.findall(query)}
    tables = [table for table in Table if table.value in words]
    frames = {table.value: _frame(reading, table, words) for table in tables}
    try:
        return pl.SQLContext(frames).execute(query, eager=True)
    except PolarsError as exc:
        names = ", ".join(table.value for table in Table)
        raise ConfigError(f"sql: {str(exc).splitlines()[0]} (the tables are {names})") from exc


def _frame(reading: Reading, table: Table, words: set[str]) -> pl.LazyFrame:
    rows = reading.rows(table)
    wanted = [name for name in TEXTS.get(table, ()) if name in words]
    if not wanted:
        return rows
    opened = rows.collect()
    return opened.with_columns(_texts(reading.contents(opened), wanted)).lazy().drop(CONTENT)


def _texts(contents: Sequence[Content | None], names: Sequence[str]) -> list[pl.Series]:
    """Columns of content: text as it is, anything else as JSON; none where it is erased."""

    def told(content: Content | None, name: str) -> str | None:
        value = None if content is None else content.text[name]
        return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return [pl.Series(name, [told(content, name) for content in contents], pl.String) for name in names]
