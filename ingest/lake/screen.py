"""The lake's answers on a screen. Nothing is told by colour alone, and a hundred columns are enough."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ingest.lake.content import Content

if TYPE_CHECKING:  # a page of turns is shown without them
    from ingest.lake.transcript import SessionTold, TurnTold, Values

SHORT_ID = 23  # a trace's id: its session's key, a dash, and enough to tell it from its session's other traces
_WIDTHS = {"time": 16, "trace": SHORT_ID, "reward": 6}
_MAX_CELL = 200  # characters of a value
_READABLE = 30  # characters in which a longer value can be read, in several lines
_MINUTE = "%Y-%m-%d %H:%M"
SHORT = 1200  # characters of a text in a transcript
ERASED = "[erased: the key of who wrote this is gone]"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a text must not steer the terminal it is read on
_CALL = re.compile(r"<tool_call>.*?</tool_call>", re.DOTALL)
_STYLES = {"user": "cyan", "reply": "green", "calls": "yellow", "tool": "yellow", "feedback": "magenta"}

Row = tuple[str, str]
"""(label, text)."""


def listing(turns: pl.DataFrame, title: str) -> Table:
    """A page of turns. What all of them have in common, whose they are, stands in the caption instead."""
    rows = turns.to_dicts()
    shared = {name: rows[0][name] for name in ("tenant", "user") if len({row[name] for row in rows}) == 1}
    whose = [name for name in ("tenant", "user") if name not in shared]
    table = _table(title, "time", "trace", *whose, "kind", "version", "tokens", "reward", "fate")
    for row in rows:
        told = [row["kind"], _versions(row["versions"]), _tokens(row), _number(row["reward"]), _fate(row)]
        cells = [_time(row["at"], _MINUTE), row["trace_id"][:SHORT_ID], *(row[name] for name in whose), *told]
        table.add_row(*(Text(_clean(cell)) for cell in cells))
    caption = " · ".join(f"{name} {_clean(value)}" for name, value in shared.items() if value)
    table.caption, table.caption_justify = caption or None, "left"
    return table


def preview(turns: pl.DataFrame, title: str, contents: Iterable[Content | None]) -> Table:
    """A page of turns, with the first words of each."""
    table = _table(title, "time", "trace", "reward")
    table.add_column("asked -> answered", ratio=1, no_wrap=True, overflow="ellipsis")
    for row, content in zip(turns.iter_rows(named=True), contents, strict=True):
        cells = [_time(row["at"], _MINUTE), row["trace_id"][:SHORT_ID], _number(row["reward"]), _preview(content)]
        table.add_row(*(Text(_clean(cell)) for cell in cells))
    return table


def _table(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1, 0, 0)
    for name in names:
        justify: Literal["left", "right"] = "right" if name in ("tokens", "reward") else "left"
        table.add_column(name, no_wrap=True, justify=justify, min_width=_WIDTHS.get(name))
    return table


def _versions(versions: list[int]) -> str:
    return ">".join(map(str, dict.fromkeys(versions))) or "?"


def _tokens(row: "Values") -> str:
    """With a mark for a reply that did not end by itself."""
    mark = "" if row["status"] == 200 and row["finish_reason"] in ("stop", "tool_calls") else "!"
    return f"{mark}{row['num_tokens']}"


def _fate(row: "Values") -> str:
    if row["fate"] is None:
        return "none yet"
    return str(row["fate"]).replace("_", " ") + (
        f" in {row['fate_version']}" if row["fate_version"] is not None else ""
    )


def _preview(content: Content | None) -> str:
    if content is None:
        return ERASED
    reply = " ".join(_CALL.sub("", content.text["reply"]).split())
    calls = ", ".join(_call(call, 30) for call in content.text["tool_calls"])
    return f"{_cut(content.text['context'], 24)} -> {' '.join(part for part in (reply, calls) if part)}"


def frame(rows: pl.DataFrame, limit: int, width: int) -> Iterator[RenderableType]:
    """Any frame, its first `limit` rows: as a table, or row by row where that is wider than `width` characters. Times
    are those of UTC, as a query compares them."""
    told = [[_cut(_value(value), _MAX_CELL) for value in row] for row in rows.head(limit).iter_rows()]
    widest = [max(len(cell) for cell in (name, *column)) for name, *column in zip(rows.columns, *told, strict=True)]
    if sum(min(one, _READABLE) + 3 for one in widest) <= width:
        table = Table(box=box.SIMPLE, pad_edge=False)
        for name in rows.columns:
            table.add_column(Text(name))
        for cells in told:
            table.add_row(*(Text(_clean(cell)) for cell in cells))
        yield table
    else:
        for number, cells in enumerate(told, start=1):
            yield Rule(f"row {number}", align="left")
            yield _grid(zip(rows.columns, cells, strict=True))
    num = f"{rows.height:,} row{'' if rows.height == 1 else 's'}"
    yield Text(num if rows.height <= limit else f"{num}, the first {limit} shown; --limit shows more", "dim")


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, list | dict):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def session(told: "SessionTold", asked_trace: str) -> Iterator[RenderableType]:
    """A session as it was said. `asked_trace` is what a trace's id that was asked for begins with, or empty."""
    row = told.row
    yield Rule(Text(_clean(f"session {row['session_id']}"), "bold"), characters="━", align="left")
    yield _grid([*_header(told), *(("feedback", _opinion(*one)) for one in told.feedback)])
    for turn in told.turns:
        yield _heading(turn, bool(asked_trace) and turn.row["trace_id"].startswith(asked_trace))
        yield Padding(_grid([*_said(turn), *_judged(turn)]), (0, 0, 1, 2))


def _header(told: "SessionTold") -> Iterator[Row]:
    row = told.row
    whose = [f"tenant {row['tenant']}", *([f"user {row['user']}"] if row["user"] else [])]
    marks = ["held out"] if row["held_out"] else []
    marks += [f"a replay of trace {row['replay_of']}"] if row["replay_of"] else []
    yield "whose", " · ".join([*whose, f"{row['arm'] or 'no one'} arm", *marks])
    revised = f" · revision {row['revision']}" if row["revision"] > 1 else ""
    yield "when", f"{_time(row['at'])} to {_time(row['closed_at'])}, closed: {row['closed']}{revised}"
    yield "ids", f"key {row['session_key']} · trajectory {row['trajectory_id']}"
    if row["parent_session_id"]:
        yield "agent", f"started by session {row['parent_session_id']}"
    for score in told.rewards:
        signal = "" if score["has_signal"] else " (the price of silence: nothing was scored)"
        yield "reward", f"{_number(score['value'])}{signal} under {score['spec']}"
    if not told.rewards:
        yield "reward", "none in the lake yet"


def _heading(turn: "TurnTold", is_asked: bool) -> Text:
    row = turn.row
    ending = row["finish_reason"] if row["status"] == 200 else f"{row['finish_reason']}, status {row['status']}"
    version = f"version {_versions(row['versions'])}"
    parts = [row["kind"], version, f"{row['num_tokens']} tokens", ending, _time(row["at"]), *_flags(row)]
    heading = Text(f"turn {row['number']}", "bold")
    heading.append(f"  {' · '.join(parts)}", "not bold dim")
    if is_asked:
        heading.append("  <- the one asked for", "bold")
    return heading


def _flags(row: "Values") -> Iterator[str]:
    if row["altered"]:
        yield "altered on its way to the user"
    if row["consent"]:
        yield f"consent {row['consent']}"


def _said(turn: "TurnTold") -> Iterator[Row]:
    if turn.content is None:
        yield "content", ERASED
        return
    text = turn.content.text
    for message in text["messages"]:
        if message["text"] or not message.get("tool_calls"):
            yield message["role"], _cut(message["text"], SHORT, lines=True)
        yield from (("called", _call(call)) for call in message.get("tool_calls", ()))
    reply = _CALL.sub("", text["reply"]).strip() if text["tool_calls"] else text["reply"]
    if reply or not text["tool_calls"]:
        yield "reply", _cut(reply, SHORT, lines=True) or "(empty)"
    yield from (("calls", _call(call)) for call in text["tool_calls"])


def _judged(turn: "TurnTold") -> Iterator[Row]:
    for one in turn.feedback:
        yield "feedback", _opinion(*one)
    if turn.reward is not None:
        parts = [f"{part['name']} {part['value']:.2f}, weight {part['weight']:g}" for part in turn.reward["parts"]]
        yield "reward", " · ".join([_number(turn.reward["value"]), *parts])
    if turn.fate is not None:
        told = _fate({"fate": turn.fate["kind"], "fate_version": turn.fate["version"]})
        yield "fate", told + (f": {turn.fate['reason']}" if turn.fate["reason"] else "")


def _opinion(row: "Values", content: Content | None) -> str:
    comment = ""
    if row["subject"] is not None:
        comment = f' "{content.text["comment"]}"' if content is not None else f" {ERASED}"
    return f"{row['name']} {row['value']:+g}{comment}"


def _call(call: Mapping[str, str], limit: int = 200) -> str:
    """`read(path="a.py")`; arguments that are no JSON object stand as they were given."""
    try:
        given = json.loads(call["arguments"])
    except ValueError:
        given = None
    told = call["arguments"]
    if isinstance(given, dict):
        told = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items())
    return f"{call['name']}({_cut(told, limit)})"


def _grid(rows: Iterable[Row]) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(min_width=9, no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for label, text in rows:
        grid.add_row(Text(_clean(label), "dim"), Text(_clean(text), _STYLES.get(label, "")))
    return grid


def _clean(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _cut(text: str, limit: int, *, lines: bool = False) -> str:
    """`text` on one line, unless `lines`; what is left out of a long one is counted."""
    told = text if lines else " ".join(text.split())
    return told if len(told) <= limit else f"{told[:limit]}… (+{len(told) - limit})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _time(at: datetime, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    return at.astimezone().strftime(form)
