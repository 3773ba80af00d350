"""Whether a text quotes a reply, and how much of it. Pure; works on words, so wrapping and white space do not matter.

coverage = share of the reply's runs of four words that the text has, too; 1 for a whole quotation. A reply is quoted
where that is at least `NEARLY`. Clients drop a reply's thinking, and some keep only what stands between `<summary>`
tags: the best of these readings counts. Replies of fewer than `MIN_WORDS` words ("Yes, it does.") are found in any
text and prove nothing; where the client itself said that a turn is a summary, less is asked of the quotation.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from ingest.sessions.messages import without_thinking

RUN = 4
MIN_WORDS = 8
NEARLY = 0.7
DECLARED = 0.3

_WORD = re.compile(r"\w+")
_SUMMARY = re.compile(r"<summary>(.*?)</summary>", re.DOTALL)
_MAX_LABEL_WORDS = 8  # between a question and its answer in a transcript: "Assistant (10:42, v3):"
_MIN_ASKED_WORDS = 3


@dataclass(frozen=True)
class Quote:
    """A reply found in a text: the share of it, in (0, 1], and the word of the text where it begins."""

    coverage: float
    at: int


def words(text: str) -> tuple[str, ...]:
    """The words of a text, in lower case."""
    return tuple(_WORD.findall(text.lower()))


class Text:
    """A text that may quote replies; cut into words once, when it is first asked."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def words(self) -> tuple[str, ...]:
        return words(self._text)

    @cached_property
    def runs(self) -> dict[tuple[str, ...], int]:
        """Every run of four words, and where it first stands."""
        found: dict[tuple[str, ...], int] = {}
        for at, run in enumerate(_cut(self.words)):
            found.setdefault(run, at)
        return found


class Reply:
    """A reply that may be quoted, in the readings that clients send back. `is_declared`: it was called a summary."""

    def __init__(self, text: str, is_declared: bool = False) -> None:
        self._text, self._is_declared = text, is_declared

    @cached_property
    def _readings(self) -> list[list[tuple[str, ...]]]:
        parts = dict.fromkeys([self._text, without_thinking(self._text), *_SUMMARY.findall(self._text)])
        least = RUN if self._is_declared else MIN_WORDS
        return [_cut(said) for part in parts if len(said := words(part)) >= least]

    def quoted_in(self, text: Text) -> Quote | None:
        """The best quotation in `text`, if it is one."""
        quotes = [quote for runs in self._readings if (quote := self._quote(runs, text))]
        return max(quotes, key=lambda quote: quote.coverage, default=None)

    def _quote(self, runs: list[tuple[str, ...]], text: Text) -> Quote | None:
        found = [text.runs[run] for run in runs if run in text.runs]
        coverage = len(found) / len(runs)
        return Quote(coverage, min(found)) if coverage >= (DECLARED if self._is_declared else NEARLY) else None


def _cut(given: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [given[at : at + RUN] for at in range(len(given) - RUN + 1)]


def stands_before(asked: str, text: Text, at: int) -> bool:
    """Whether the end of `asked` stands in `text` right before word `at`, a speaker's label apart."""
    tail = words(asked)[-MIN_WORDS:]
    if len(tail) < _MIN_ASKED_WORDS:
        return False
    near = text.words[max(0, at - len(tail) - _MAX_LABEL_WORDS) : at]
    return any(near[start : start + len(tail)] == tail for start in range(len(near) - len(tail) + 1))
