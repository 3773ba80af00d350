"""What a history told, and how a value stands to it: held, wrong, or nothing that was said."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise

from rewards.summary.atoms import Atom, AtomKind
from rewards.summary.facts import Mention, Statement, read
from rewards.summary.wording import Words

_ENOUGH = 0.5  # of the words of a claim, by weight, are another statement's for the two to be about one thing
_ENOUGH_UNKNOWN = 0.25  # the same for a value that the history does not have: false in any case


class Standing(StrEnum):
    """What a history says of a value that a text binds to some words."""

    HELD = "held"  # it has the value, bound to words that the text shares
    WRONG = "wrong"  # what it says in those words has another value
    UNBOUND = "unbound"  # it has the value, in other words
    UNKNOWN = "unknown"  # it does not have the value, nor the words
    BARE = "bare"  # the text binds the value to nothing


@lru_cache(maxsize=8)  # a turn's scorers ask for the same one after the other
def told_by(*texts: str) -> "Told":
    """What these texts tell, read once."""
    return Told(texts)


class Told:
    """The statements of a history, found by their words. Rare words weigh more: log(1 + statements / those with it).

    Of two mentions the closeness is the weight of the words near both, and half that of words near the one and in the
    other's statement. A value is wrong where a mention of another value of its kind is closer than any of its own, and
    close enough: half the weight of the words near it, or a quarter where the history does not have the value at all.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Milliseconds for a thousand words; `told_by` keeps the newest few."""
        self.statements = [statement for text in texts for statement in read(text)]
        mentions = [mention for statement in self.statements for mention in statement.mentions]
        counts = Counter(word for statement in self.statements for word in statement.words)
        self.names = frozenset(m.atom.value for m in mentions if m.atom.kind is AtomKind.NAME)
        self._weights = {word: math.log(1.0 + len(self.statements) / count) for word, count in counts.items()}
        self._strange = math.log(1.0 + len(self.statements))
        self._values = frozenset((m.atom.kind, m.atom.value) for m in mentions)
        self._mentions: dict[tuple[str, str], list[Mention]] = defaultdict(list)
        for mention in mentions:
            for word in mention.wide:
                self._mentions[mention.atom.sort, word].append(mention)
        self._windows: dict[str, list[Words]] = defaultdict(list)
        for one, other in pairwise([*self.statements, Statement("", frozenset(), ())]):
            for word in one.words | other.words:
                self._windows[word].append(one.words | other.words)

    def read(self, text: str) -> tuple[Statement, ...]:
        """The statements of another text, which may begin with names that are known here."""
        return read(text, self.names)

    def weight(self, words: Words) -> float:
        return sum(self._weights.get(word, self._strange) for word in words)

    def has(self, atom: Atom) -> bool:
        if (atom.kind, atom.value) in self._values:
            return True
        return atom.kind is AtomKind.NAME and any(atom.is_same(Atom(AtomKind.NAME, name)) for name in self.names)

    def standing(self, mention: Mention) -> Standing:
        if not mention.near:
            return Standing.BARE
        same, other = 0.0, 0.0
        for told in self._near(mention):
            if told.atom.is_same(mention.atom):
                same = max(same, self._closeness(mention, told))
            elif told.atom.is_comparable(mention.atom):
                other = max(other, self._closeness(mention, told))
        is_known = same > 0.0 or self.has(mention.atom)
        enough = _ENOUGH if is_known else _ENOUGH_UNKNOWN
        if other > same and other >= enough * self.weight(mention.near):
            return Standing.WRONG
        if same > 0.0:
            return Standing.HELD
        return Standing.UNBOUND if is_known else Standing.UNKNOWN

    def _near(self, mention: Mention) -> Iterable[Mention]:
        """Mentions of its sort with a word in common, each once."""
        found = (told for word in mention.wide for told in self._mentions.get((mention.atom.sort, word), ()))
        return {id(told): told for told in found}.values()

    def _closeness(self, one: Mention, other: Mention) -> float:
        both = one.near & other.near
        half = ((one.near & other.wide) | (one.wide & other.near)) - both
        return self.weight(both) + 0.5 * self.weight(half)

    def supports(self, claim: Words) -> bool:
        """Whether a statement, or two in a row, have most of a claim's words."""
        rarest = sorted(claim, key=lambda word: len(self._windows.get(word, ())))
        return any(self.is_covered(claim, window) for word in rarest for window in self._windows.get(word, ()))

    def is_covered(self, claim: Words, by: Words) -> bool:
        return self.weight(claim & by) >= _ENOUGH * self.weight(claim)

    def is_in(self, claim: Words, statements: Sequence[Statement]) -> bool:
        """Whether one of the statements has most of a claim's words."""
        return any(not statement.is_list and self.is_covered(claim, statement.words) for statement in statements)

    @property
    def decisions(self) -> list[Statement]:
        return [one for one in self.statements if one.words and one.is_decision and not one.is_open]

    @property
    def open_tasks(self) -> list[Statement]:
        """What was left to do and not said to be done afterwards."""
        done = [(number, one) for number, one in enumerate(self.statements) if one.says_done]
        return [
            task
            for number, task in enumerate(self.statements)
            if task.words
            and task.is_open
            and not any(later > number and self.is_covered(task.words, one.words) for later, one in done)
        ]
