"""What a text says that can be checked: values, and the words that they are bound to. Pure, no model.

A text is cut into statements (sentences, list items, lines), these into clauses. A *mention* is a value (`atoms.Atom`)
with the words near it, those of its clause, and the words of its whole statement. Words are stems of content words;
those with which people mark tasks and decisions are none. So a value without words around it is bound to nothing, and a
value that was moved to another fact is bound to other words.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from rewards.summary import wording
from rewards.summary.atoms import Atom, AtomKind, Span, find
from rewards.summary.wording import Words, content


@dataclass(frozen=True)
class Mention:
    """An atom where it stands: `near` are the words of its clause, `wide` those of its statement."""

    atom: Atom
    near: Words
    wide: Words


@dataclass(frozen=True)
class Statement:
    """A sentence or list item. `is_list`: values and words in a row that no sentence holds together."""

    text: str
    words: Words
    mentions: tuple[Mention, ...]
    is_list: bool = False

    @property
    def is_decision(self) -> bool:
        return bool(wording.DECISION.search(self.text))

    @property
    def is_open(self) -> bool:
        """Whether it says that something is left to do."""
        return bool(wording.OPEN.search(self.text))

    @property
    def says_done(self) -> bool:
        return bool(wording.DONE.search(self.text))

    @property
    def says_all_is_done(self) -> bool:
        return bool(wording.ALL_DONE.search(self.text))


_TITLES = "".join(rf"(?<!\b{title}\.)" for title in ("Dr", "Mr", "Ms", "Mrs", "Prof", r"e\.g", r"i\.e"))
_SENTENCE = re.compile(rf"\n+|{_TITLES}(?<=[.!?])[\"')]?\s+|;\s+|\s+[•|]\s+")
_BLANKS = re.compile(r"\s+")
_LONGEST = 800  # characters
_BULLET = re.compile(r"^\s*(?:[-*•#>]+|\d{1,2}[.)](?=\s))\s*")
_CLAUSE = re.compile(r",\s|\s(?:and|but|while|whereas|or)\s|\s-{1,2}\s|\s[\u2013\u2014]\s|[()]")


def read(text: str, names: Collection[str] = ()) -> tuple[Statement, ...]:
    """The statements of a text. `names` are those known from elsewhere: a sentence may begin with them."""
    parts = (_BULLET.sub("", part).strip() for piece in _pieces(text) for part in _SENTENCE.split(piece))
    return tuple(_statement(part, names) for part in parts if part)


def _pieces(text: str) -> Iterator[str]:
    """Lines, with single blanks, cut where they are longer than any sentence: minified code, a table in one line.

    What the expressions take grows with the square of what they are given; cut, it grows with the text.
    """
    for line in text.splitlines():
        plain = _BLANKS.sub(" ", line)
        yield from (plain[at : at + _LONGEST] for at in range(0, len(plain), _LONGEST))


def _statement(text: str, names: Collection[str]) -> Statement:
    found = list(find(text, names))
    plain = _blanked(text, [span for atom, span in found if atom.kind is not AtomKind.NAME])
    if wording.is_list(plain):
        bare = tuple(Mention(atom, frozenset(), frozenset()) for atom, _ in found)
        return Statement(text, content(plain), bare, is_list=True)
    wide = content(plain) | {atom.value for atom, _ in found}
    mentions: list[Mention] = []
    label: Words = frozenset()
    for start, end in _clauses(text, [span for _, span in found]):
        inside = [atom for atom, (at, _) in found if start <= at < end]
        said = content(plain[start:end])
        for atom in inside:
            own = content(atom.value) | {atom.value}
            # "files changed: a.py, b.py": what has no words of its own goes with those of the first clause
            near = (said | {other.value for other in inside}) - own or label - own
            mentions.append(Mention(atom, near, wide - own))
        label = label or said
    return Statement(text, content(plain), tuple(mentions))


def _blanked(text: str, spans: Iterable[Span]) -> str:
    """The text with blanks where the spans are: what is a value is no word."""
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def _clauses(text: str, spans: list[Span]) -> Iterator[Span]:
    """Spans of the text that end where a clause does, each with a value; what has none goes with the one before it."""
    cuts = [cut.start() for cut in _CLAUSE.finditer(text) if not any(a < cut.start() < b for a, b in spans)]
    start = 0
    for cut, following in pairwise([*cuts, len(text)]):
        if any(start <= at < cut for at, _ in spans) and any(cut <= at < following for at, _ in spans):
            yield start, cut
            start = cut
    yield start, len(text)
