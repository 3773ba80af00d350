"""Letters on a screen: the heaps they lie in, and one of them."""

import re
import textwrap
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ingest.letters import payload
from ingest.letters.choose import SHOWN, Source, label, times
from ingest.log import letters, redrive
from ingest.log.letters import Failure, Letter
from ingest.log.places import Place
from ingest.log.protocol import EventLog

NARROW = 118  # columns from which on an error has a column of its own

_RULES = {
    Failure.UNREADABLE: "a message is the record that its header `schema` says, of a version that there is",
    Failure.UNCLAIMED: "feedback names a trace or session that comes within `ingest.horizon_s`",
    Failure.ORPHANED: "a trace comes after the one of its session that its prefix leans on, and that can be read still",
    Failure.NEWER: "a reader reads the versions up to its own; a newer one waits for a reader that knows it",
    Failure.LATE: "feedback comes before its session closes",
}
_QUOTED = re.compile(r"'(?![a-z]+/[0-9]+')[^']*'")  # all but the name of a schema
_LABEL = re.compile(r"[a-z][a-z ]{1,9}?  +")
_NAMED = re.compile(r"^(feedback|trace|session) \S+:")


@dataclass
class Heap:
    """Letters of one topic that failed alike. Times are Unix seconds; `newest_place` is where the newest lies.

    `num` lie there; `num_again` of them had been put back before and failed again; `num_back` were put back since.
    """

    source: Source
    failure: Failure
    told: str
    oldest: float
    newest: float
    newest_place: Place
    num: int = 0
    num_again: int = 0
    num_back: int = 0

    def add(self, letter: Letter, is_back: bool) -> None:
        self.oldest = min(self.oldest, letter.at)
        if letter.at >= self.newest:
            self.newest, self.newest_place = letter.at, letter.place
        self.num_back += is_back
        self.num += not is_back
        self.num_again += not is_back and letter.times > 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "topic": self.source.topic.name,
            "group": self.source.group,
            "failure": label(self.failure),
            "error": self.told,
            "letters": self.num,
            "oldest": self.oldest,
            "newest": self.newest,
            "newest_place": str(self.newest_place),
            "came_again": self.num_again,
            "put_back": self.num_back,
        }


def heaps(log: EventLog) -> list[Heap]:
    """All letters, by topic, failure and error. Raises `LogError`."""
    found: dict[tuple[str, Failure, str], Heap] = {}
    for source in SHOWN:
        put_back: frozenset[str] | None = None
        for letter in letters.each(log, source.name):
            put_back = redrive.done(log, source.name) if put_back is None else put_back
            told = alike(letter.told)
            new = Heap(source, letter.failure, told, letter.at, letter.at, letter.place)
            heap = found.setdefault((source.name, letter.failure, told), new)
            heap.add(letter, str(letter.origin) in put_back)
    return list(found.values())


def alike(told: str) -> str:
    """An error without the ids that tell one letter from another."""
    return _printable(_QUOTED.sub("'…'", _NAMED.sub(r"\1 …:", told)))


def ago(seconds: float) -> str:
    """A time as people say it, in one unit."""
    for unit, length_s in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def listing(found: Iterable[Heap], now: float, width: int) -> RenderableType:
    """The heaps as a table; where that has no room for the errors, they stand below it by number."""
    is_wide, below = width >= NARROW, []
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, leading=is_wide)
    for name in ("", "topic", "group", "failure"):
        table.add_column(name, no_wrap=True)
    for name in ("letters", "came again", "put back", "oldest", "newest"):
        table.add_column(name, justify="right", min_width=max(map(len, name.split())))
    if is_wide:
        table.add_column("error, and where the newest lies", overflow="fold")
    for number, heap in enumerate(found, 1):
        told = f"{heap.told}\n{heap.newest_place}"
        row = [str(number), heap.source.topic.name, heap.source.group, label(heap.failure)]
        row += [str(heap.num), str(heap.num_again), str(heap.num_back)]
        row += [ago(now - heap.oldest), ago(now - heap.newest)]
        table.add_row(*row, *([escape(told)] if is_wide else []))
        below.append(Text(f"{number}  {told}".replace("\n", f"\n{' ' * len(str(number))}  ")))
    return table if is_wide else Group(table, "", *below)


def letter(source: Source, shown: Letter, refusal: str | None, is_back: bool, with_content: bool) -> Iterator[str]:
    """One letter, line by line."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(shown.at))
    facts = {
        "letter": str(shown.place),
        "first lay": f"{shown.origin}, read by group {source.group}",
        "failed": f"{when}, {label(shown.failure)}",
        "rule": _RULES[shown.failure],
        "error": shown.told,
        "put back": _history(shown, is_back),
        "now": refusal or "nothing is known against it: `onstream dlq redrive --place` puts it back",
        "key": shown.message.key,
    }
    for name, told in facts.items():
        yield f"{name:<11}{_printable(told)}"
    yield "headers"
    for name, told in sorted(shown.original_headers.items()):
        yield f"  {name}: {_printable(told)}"
    yield "payload"
    lines = payload.content(shown.message.value) if with_content else payload.form(shown.message.value)
    for line in lines:
        yield f"  {_printable(line)}"
    if not with_content:
        yield "  --content prints it: it may be what users typed"


def _history(shown: Letter, is_back: bool) -> str:
    before = f"{times(shown)} before it came here"
    last = shown.message.headers.get(redrive.FROM)
    told = f"{before}, last from {last}" if shown.times and last else before
    return f"{told}; and since" if is_back else told


def _printable(told: str) -> str:
    """A terminal obeys control characters; nothing on the log may give it orders."""
    return "".join(char if char.isprintable() else "\ufffd" for char in told)


def refusals(refused: Iterable[tuple[Place, str]], most: int) -> Iterator[str]:
    """Two lines for each reason: how many, and where the first lie."""
    by_reason: dict[str, list[Place]] = {}
    for place, why in refused:
        by_reason.setdefault(alike(why), []).append(place)
    for why, places in sorted(by_reason.items()):
        more = f" and {len(places) - most} more" if len(places) > most else ""
        yield f"refused {len(places)}: {why}"
        yield f"  {', '.join(map(str, places[:most]))}{more}"


def to_screen(lines: Iterable[str]) -> None:
    """Print lines, broken between words where a terminal is narrower, and not at all in a pipe."""
    console = Console(highlight=False)
    for line in lines:
        console.print(Text(_hanging(line, console.width) if console.is_terminal else line), soft_wrap=True)


def _hanging(line: str, width: int) -> str:
    """The line broken at `width`, its rest below where its text began."""
    if len(line) <= width:
        return line
    found = _LABEL.match(line)
    rest = " " * (found.end() if found else len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, width, subsequent_indent=rest, replace_whitespace=False, break_on_hyphens=False)
