"""Taking private values out of texts, chat requests and token sequences. Configured once, then only called.

1. What is a placeholder already is left alone, and parts the text.
2. Every finder looks at the parts, set apart from each other; places that overlap become one, of the kind that stands
   first in `_FINDERS`.
3. What is left between the places is looked at again in the same way, and for values that were found and stand in it
   once more, until nothing is found.

So a redacted text stays as it is: the second time, exactly those parts are looked at that were found clean.

Which libraries were tried, and why this is none of them: docs/bench/redact.md.
"""

import contextlib
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeVar

from infra.config import Config, PrivacyConfig
from ingest.privacy import credentials, emails, named, numbers, own, phones, walk
from ingest.privacy.kinds import Kind, Span
from ingest.privacy.lately import Lately
from ingest.privacy.located import located
from ingest.privacy.placeholders import PLACEHOLDER, Placeholders
from ingest.privacy.view import Finder, Place, Seen, View

APART = "\0"
"""The piece of a token that is no text and parts it, as one that begins a message."""

_APART = "\n\0\n"  # no pattern of ours reads over it
_FINDERS: tuple[tuple[Kind, Finder], ...] = (
    (Kind.SECRET, credentials.keys),
    (Kind.EMAIL, emails.emails),
    (Kind.SECRET, named.named_secrets),
    (Kind.IBAN, numbers.ibans),
    (Kind.CARD, numbers.cards),
    (Kind.SSN, numbers.ssns),
    (Kind.IP, numbers.ips),
    (Kind.PHONE, phones.phones),
)
_ANNOUNCING = re.compile(
    r"phone|mobile?\b|cell|fax|tel\b|telefon|whatsapp|ssn|social|itin|tax_?(?:payer_?)?id|card|\bpan\b", re.IGNORECASE
)
# What stands before a value may tell what it is the first time only.
_REPEATED = (Kind.SECRET, Kind.PHONE, Kind.SSN, Kind.CARD)
_MIN_REPEATED_CHARS, _MAX_REPEATED = 6, 64  # values of a text: the time stays linear in its length
_MAX_KNOWN = 1 << 16  # texts and places in them, at some 250 bytes each


T = TypeVar("T")


class Redactor:
    """Finds private values of the configured kinds. Safe to share between threads."""

    def __init__(
        self, kinds: Iterable[Kind], patterns: Mapping[str, str] | None = None, lately: Lately | None = None
    ) -> None:
        """`lately`: what was found is known again, as a session's next turn says again what its turns before said."""
        wanted = frozenset(kinds)
        mine = [(name, own.finder(name, pattern)) for name, pattern in (patterns or {}).items()]
        self._finders: tuple[tuple[str, Finder], ...] = (*mine, *((k, f) for k, f in _FINDERS if k in wanted))
        self._takes_secrets = Kind.SECRET in wanted
        self._takes_data = Kind.DATA in wanted
        self._lately = lately

    @classmethod
    def of(cls, config: PrivacyConfig) -> "Redactor":
        """What the configuration asks for. Raises `ConfigError` for an own pattern that cannot be used."""
        return cls(map(Kind, config.redact), config.patterns, Lately(_MAX_KNOWN))

    def spans(self, text: str, name: str = "") -> tuple[Span, ...]:
        """Private places of `text`, in order and apart from each other. `name` is the field it is the value of."""
        if self._lately is None:
            return self._spans(text, name)
        return self._lately.of(f"{len(name)} {name}{text}", lambda: self._spans(text, name))

    def _spans(self, text: str, name: str) -> tuple[Span, ...]:
        if self._takes_secrets and name and named.is_held_by(name, text) and not PLACEHOLDER.search(text):
            return (Span(0, len(text), Kind.SECRET),)
        said = f"{name}: " if name and _ANNOUNCING.search(name) else ""
        taken = [match.span() for match in PLACEHOLDER.finditer(text)] if "<" in text else []
        found: list[Span] = []
        seen: Seen = {}
        while True:
            parts = list(_parts(0, len(text), taken))
            new = self._look(text, parts, said, seen) or _repeated(text, parts, found)
            if not new:
                return tuple(sorted(found))
            found += new
            taken = sorted([*taken, *((span.start, span.end) for span in new)])

    def redact_text(self, text: str, placeholders: Placeholders, name: str = "") -> tuple[str, Counter[str]]:
        """`text` with a placeholder for each private value, and how many of which kind."""
        if self._takes_data and (payload := walk.data_payload(text)):
            start, blob = payload
            return text[:start] + placeholders.of(Kind.DATA, blob), Counter({Kind.DATA.value: 1})
        spans = self.spans(text, name)
        if not spans:
            return text, Counter()
        pieces, at = [], 0
        for span in spans:
            pieces += [text[at : span.start], placeholders.of(span.kind, text[span.start : span.end])]
            at = span.end
        return "".join([*pieces, text[at:]]), Counter(str(span.kind) for span in spans)

    def redact_json(self, value: Any, placeholders: Placeholders) -> tuple[Any, Counter[str]]:
        """A chat request or any JSON value with its texts redacted: see `walk.texts`."""
        counts: Counter[str] = Counter()

        def redact(text: str, name: str) -> str:
            redacted, found = self.redact_text(text, placeholders, name)
            counts.update(found)
            return redacted

        return walk.texts(value, redact), counts

    def redact_tokens(
        self, token_ids: Sequence[int], pieces: Sequence[str], filler: int, values: Collection[str] = ()
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Put `filler` for every token that has a part in a private value, one for one: positions stay.

        `pieces[i]` is what token `i` adds to the text, or `APART`. A token that is `filler` already parts the text, so
        choose one that no reply has. `values` are private too, wherever they stand; where one may be there and cannot
        be located, every token gives way. Gives the new ids and the positions that changed, ascending.

        Raises:
            ValueError: there are more or fewer pieces than tokens.
        """
        if len(token_ids) != len(pieces):
            raise ValueError(f"redact_tokens: one piece for each token, got {len(pieces)} for {len(token_ids)}")
        altered: set[int] = set()
        fillers = set(_places_in(tuple(token_ids), filler))
        apart = sorted(fillers.union(_places_in(pieces, APART)))
        todo = list(_parts(0, len(pieces), ((n, n + 1) for n in apart)))
        while todo:
            start, end = todo.pop()
            part = pieces[start:end]
            spans = self.spans("".join(part))
            if spans:
                touched = {start + n for n in _touched(part, [(span.start, span.end) for span in spans])}
                altered |= touched
                todo += _parts(start, end, ((n, n + 1) for n in sorted(touched)))
        if values:
            places = located("".join(pieces), values)
            altered.update(range(len(pieces)) if places is None else _touched(pieces, places))
            altered -= fillers
        if not altered:
            return tuple(token_ids), ()
        ids = list(token_ids)
        for n in altered:
            ids[n] = filler
        return tuple(ids), tuple(sorted(altered))

    def _look(self, text: str, parts: Sequence[Place], said: str, seen: Seen) -> list[Span]:
        """What is private in these parts of `text`; `said` goes before the first one if that begins the text."""
        before = said if parts and parts[0][0] == 0 else ""
        told = self._scan(before + _APART.join(text[start:end] for start, end in parts), seen)
        found, offset, n = [], len(before), 0  # of the part in what was scanned; of the next span
        for start, end in parts if told else ():
            while n < len(told) and told[n].start < offset + end - start:
                first, last = max(told[n].start - offset, 0), min(told[n].end - offset, end - start)
                if first < last:
                    found.append(Span(start + first, start + last, told[n].kind))
                if told[n].end > offset + end - start:
                    break  # it reads over the gap: the next part has the rest
                n += 1
            offset += end - start + len(_APART)
        return found

    def _scan(self, text: str, seen: Seen) -> list[Span]:
        """What the finders tell, overlaps joined."""
        view = View(text, seen)
        told = [(start, end, rank) for rank, (_, find) in enumerate(self._finders) for start, end in find(view)]
        merged: list[tuple[int, int, int]] = []
        for start, end, rank in sorted(told):
            if merged and start < merged[-1][1]:
                first, last, best = merged[-1]
                merged[-1] = (first, max(last, end), min(best, rank))
            else:
                merged.append((start, end, rank))
        return [Span(start, end, self._finders[rank][0]) for start, end, rank in merged]


def _touched(pieces: Sequence[str], places: Iterable[Place]) -> set[int]:
    """Which of the pieces have a part in these places of their joined text."""
    ends = list(accumulate(map(len, pieces)))
    touched: set[int] = set()
    for start, end in places:
        touched.update(range(bisect_right(ends, start), bisect_left(ends, end) + 1))
    return touched


def _places_in(sequence: Sequence[T], wanted: T) -> Iterator[int]:
    """Where it stands in the sequence."""
    at = -1
    with contextlib.suppress(ValueError):
        while True:
            at = sequence.index(wanted, at + 1)
            yield at


def _repeated(text: str, parts: Sequence[Place], found: Iterable[Span]) -> list[Span]:
    """Where values that were found stand once more in these parts, as words of their own."""
    told = {text[span.start : span.end]: span.kind for span in found if span.kind in _REPEATED}
    values = [value for value in told if len(value) >= _MIN_REPEATED_CHARS and text.count(value) > 1][:_MAX_REPEATED]
    if not values:
        return []
    words = sorted(values, key=len, reverse=True)
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(value)}(?!\w)" for value in words))
    again = (match for start, end in parts for match in pattern.finditer(text, start, end))
    return [Span(match.start(), match.end(), told[match[0]]) for match in again]


def check(config: Config) -> None:
    """A check of `onstream check`: that the own patterns can be used. Raises `ConfigError`."""
    Redactor.of(config.privacy)


def _parts(start: int, end: int, taken: Iterable[Place]) -> Iterator[Place]:
    """What of `[start, end)` lies between the places that are taken, which are in order."""
    for first, last in taken:
        if first > start:
            yield start, first
        start = last
    if end > start:
        yield start, end
