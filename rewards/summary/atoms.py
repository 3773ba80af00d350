"""Values in a text that can be compared: found by one regular expression, and written alike where they mean the same.

    "1,200.50 EUR", "€1200.5"        number 1200.5, unit eur          "12 tests", "twelve tests"   number 12, unit test
    "May 12", "12 May", "2026-05-12" date 05-12                       "2 pm", "14:00"              time 14:00

What is counted is a number's unit, too; a single digit of nothing is no value. A name is a word in capitals where no
sentence begins, or two in a row; elsewhere only when it is known to be one.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from rewards.summary.wording import EMPTY, stem

Span = tuple[int, int]


class AtomKind(StrEnum):
    """What a value is."""

    URL = "url"
    DATE = "date"
    TIME = "time"
    PATH = "path"
    VERSION = "version"
    NUMBER = "number"
    IDENTIFIER = "identifier"
    QUOTED = "quoted"
    NAME = "name"


@dataclass(frozen=True)
class Atom:
    """A value as it is compared. `unit` is a number's, and may be empty."""

    kind: AtomKind
    value: str
    unit: str = ""

    @property
    def sort(self) -> str:
        """Its kind, but that a path and an identifier are of one: branches, hosts and modules are written as both."""
        return AtomKind.IDENTIFIER if self.kind is AtomKind.PATH else self.kind

    def is_same(self, other: "Atom") -> bool:
        """Units differ only where both have one; of a name a part will do."""
        if self.kind is AtomKind.NAME and other.kind is AtomKind.NAME:
            ours, others = set(self.value.split()), set(other.value.split())
            return ours <= others or others <= ours
        return self.value == other.value and self.is_comparable(other)

    def is_comparable(self, other: "Atom") -> bool:
        """Whether one could stand where the other does."""
        return self.sort == other.sort and (self.unit == other.unit or not self.unit or not other.unit)


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_COUNTS, start=2)}
_UNITS = {
    "€": "eur", "euro": "eur", "euros": "eur", "$": "usd", "dollar": "usd", "dollars": "usd", "£": "gbp",
    "pound": "gbp", "pounds": "gbp", "percent": "%",
    "milliseconds": "ms", "seconds": "s", "second": "s", "sec": "s", "secs": "s",
    "minutes": "min", "minute": "min", "hours": "h", "hour": "h",
}  # fmt: skip
_NO_NAMES = frozenset(("I", "The", "This", "That", "These", "Those", *(month.title() for month in _MONTHS)))

_MONTH = (
    r"(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)"
)
_UNIT = (
    r"(?i:(?:percent|eur|euros?|usd|dollars?|gbp|pounds?|ms|milliseconds?|s|secs?|seconds?|min|minutes?|h|hours?|"
    r"[kmgt]i?b|mg|kg|g|ml|l|km|cm|mm|m)\b|[%€$£])"
)
_EXTENSION = (
    r"(?:py|js|ts|tsx|toml|ya?ml|json|md|txt|csv|tsv|parquet|log|sh|go|rs|java|c|cc|cpp|h|html|css|sql|ini|cfg|lock)"
)
_CAPITAL = r"[A-ZÀ-Ý][a-zà-ÿ]+"
_PATTERNS = {
    AtomKind.URL: r"""https?://[^\s<>"']{0,400}[^\s<>"'.,;:)]""",
    AtomKind.QUOTED: r'"[^"\n]{2,40}"|“[^”\n]{2,40}”|`[^`\n]{2,60}`',
    AtomKind.DATE: (
        rf"\d{{4}}-\d\d-\d\d|\b{_MONTH}\.?\s\d{{1,2}}(?!\d)(?:st|nd|rd|th)?"
        rf"|\b\d{{1,2}}(?:st|nd|rd|th|\.)?\s{_MONTH}\b|\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b"
    ),
    AtomKind.TIME: r"\b\d{1,2}:\d\d(?:\s?[ap]m)?\b|\b\d{1,2}\s?[ap]m\b",
    AtomKind.PATH: (
        r"~?/?(?:[\w.\-]{1,64}/){1,32}[\w.\-]{0,64}\w|/[\w.\-]{1,64}\w"
        rf"|\b[\w\-]{{1,64}}\.{_EXTENSION}\b"
    ),
    AtomKind.VERSION: r"\bv\d+(?:\.\d+)*\b|(?<![\w.])\d+\.\d+\.\d+[\w\-]{0,64}",
    AtomKind.NUMBER: (
        r"(?:(?i:eur|usd|gbp)\s|[€$£]\s?)?(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w.]*[_\d])"
        rf"(?:\s?{_UNIT}|(?![A-Za-z]))|\b(?i:{'|'.join(_COUNTS)})(?=\s[a-z]{{3,}})"
    ),
    AtomKind.IDENTIFIER: (
        r"\b(?=[\w\-]{0,64}[\d_])(?=[\w\-]{0,64}[A-Za-z])[A-Za-z\d][\w\-]{0,64}\w\b|\b_\w{1,64}\b|\b[A-Za-z]{1,32}[a-z][A-Z]\w{0,64}\b"
    ),
    AtomKind.NAME: rf"(?:(?:Dr|Mrs?|Ms|Prof)\.\s)?\b{_CAPITAL}(?:\s(?:(?:de|da|di|van|von|la)\s)?{_CAPITAL})*",
}
_ATOM = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()))
_BEHIND = 40  # characters after a number in which its noun stands
_DIGITS = re.compile(r"\d[\d,]*(?:\.\d+)?")
_NOUN = re.compile(r"\s([a-z]{3,})\b")


def find(text: str, names: Collection[str] = ()) -> Iterator[tuple[Atom, Span]]:
    """The values of a sentence, and where they stand. `names` are those that it may begin with."""
    for match in _ATOM.finditer(text):
        kind = AtomKind(str(match.lastgroup))
        atom = _NORMAL[kind](match.group(), text[match.end() : match.end() + _BEHIND])
        if atom is None:
            continue
        is_lone = atom.kind is AtomKind.NAME and len(atom.value.split()) < 2
        if not (is_lone and match.start() == 0 and atom.value not in names):
            yield atom, match.span()


def _as_is(kind: AtomKind) -> Callable[[str, str], Atom]:
    return lambda text, _: Atom(kind, text)


def _version(text: str, _: str) -> Atom:
    return Atom(AtomKind.VERSION, text.removeprefix("v"))


def _number(text: str, following: str) -> Atom | None:
    noun = _NOUN.match(following)
    counted = noun[1] if noun else ""
    match = _DIGITS.search(text)
    if match is None:
        return Atom(AtomKind.NUMBER, _NUMBER_WORDS[text.lower()], _unit(counted))
    value = match.group().replace(",", "")
    if "." in value:
        value = value.rstrip("0").rstrip(".")
    unit = _unit((text[: match.start()] + text[match.end() :]).strip().lower() or counted)
    return None if not unit and len(value) < 2 else Atom(AtomKind.NUMBER, value.lstrip("0") or "0", unit)


def _unit(text: str) -> str:
    if text in EMPTY:
        return ""
    return _UNITS.get(text) or (stem(text) if len(text) > 3 else text)


def _date(text: str, _: str) -> Atom:
    iso = re.fullmatch(r"\d{4}-(\d\d)-(\d\d)", text)
    if iso:
        return Atom(AtomKind.DATE, f"{iso[1]}-{iso[2]}")
    month = next((n for n, name in enumerate(_MONTHS, 1) if re.search(rf"\b{name}", text.lower())), None)
    day = re.search(r"\d+", text)
    return Atom(AtomKind.DATE, f"{month:02d}-{int(day[0]):02d}" if month and day else text.lower())


def _time(text: str, _: str) -> Atom:
    hour, _, minute = text.rstrip("apm ").partition(":")
    later = 12 if text.endswith("pm") and int(hour) < 12 else 0
    return Atom(AtomKind.TIME, f"{int(hour) + later:02d}:{minute or '00'}")


def _path(text: str, _: str) -> Atom | None:
    """ "and/or" is none."""
    is_path = text.count("/") != 1 or text.startswith("/") or re.search(r"[\d._\-]", text)
    return Atom(AtomKind.PATH, text.removeprefix("./")) if is_path else None


def _quoted(text: str, _: str) -> Atom:
    """A path or identifier in quotation marks is one without them, too."""
    inside = text[1:-1].strip()
    match = _ATOM.fullmatch(inside)
    kind = AtomKind(str(match.lastgroup)) if match else AtomKind.QUOTED
    if kind in (AtomKind.URL, AtomKind.PATH, AtomKind.VERSION, AtomKind.IDENTIFIER):
        return _NORMAL[kind](inside, "") or Atom(AtomKind.QUOTED, inside.lower())
    return Atom(AtomKind.QUOTED, inside.lower())


def _name(text: str, _: str) -> Atom | None:
    said = [word for word in text.split() if word not in _NO_NAMES]
    while said and said[0].lower() in EMPTY:
        said = said[1:]
    return Atom(AtomKind.NAME, " ".join(said).lower()) if said else None


_NORMAL: dict[AtomKind, Callable[[str, str], Atom | None]] = {
    AtomKind.URL: _as_is(AtomKind.URL),
    AtomKind.QUOTED: _quoted,
    AtomKind.DATE: _date,
    AtomKind.TIME: _time,
    AtomKind.PATH: _path,
    AtomKind.VERSION: _version,
    AtomKind.NUMBER: _number,
    AtomKind.IDENTIFIER: _as_is(AtomKind.IDENTIFIER),
    AtomKind.NAME: _name,
}
