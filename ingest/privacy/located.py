"""Where values that were found in texts stand in what tokens spell.

A template writes texts into a prompt in its own way: trimmed, as JSON, with other blanks; and a token's own text may
lack the blank it begins with, or be a part of a character.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import accumulate

from ingest.privacy.view import Place

_MAX_STEPS = 64_000_000  # characters looked at for all values together: 0.07 to 0.2 s on one core
_SLOW = 16  # times as long as for others takes a value that a pattern looks for
_MIN_CHARS = 6  # a shorter value is one only where it is a word of its own
_LONG_CHARS, _END_CHARS = 64, 24
_PLAIN = re.compile(rf"[A-Za-z0-9 .:/@+()\-]{{1,{_LONG_CHARS}}}")  # no template writes these otherwise
_SIGNS = re.compile(r"[A-Za-z0-9]{3,}")
_LETTERS = re.compile(r"[^\W_]+")
_FOREIGN = re.compile(r"[^\x00-\x7f]+")


def located(text: str, values: Collection[str]) -> list[Place] | None:
    """Every place of the values in `text`. `None`: one may be there and it cannot be told where."""
    looks = sum(1 if len(value) >= _MIN_CHARS and value.isascii() else _SLOW for value in values)
    if len(text) * looks > _MAX_STEPS:
        return None
    spelled, found = _Spelled(text), list[Place]()
    for value in filter(None, map(str.strip, values)):
        places: list[Place] = []
        if len(value) <= 2 * len(text):
            places = spelled.written(value) or spelled.in_part(value) or spelled.loosely(value)
        if not places and spelled.may_hold(value):
            return None
        found += places
    return found


class _Spelled:
    """A text that tokens spell."""

    def __init__(self, text: str) -> None:
        self._text = text

    def written(self, value: str) -> list[Place]:
        """Where it stands as it is, or as JSON writes it."""
        forms = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
        found: list[Place] = []
        for form in forms:
            words: list[Place] = []
            if len(form) < _MIN_CHARS:
                words = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(form)}(?!\w)", self._text)]
            found += words or [(at, at + len(form)) for at in _places(self._text, form)]
        return found

    def in_part(self, value: str) -> list[Place]:
        """Where it stands with parts of characters for what is not ASCII."""
        if value.isascii():
            return []
        gaps = (rf"[^\x00-\x7f]{{1,{4 * len(run)}}}" for run in _FOREIGN.findall(value))
        parts = zip(map(re.escape, _FOREIGN.split(value)), [*gaps, ""], strict=True)
        return [match.span() for match in re.finditer("".join(map("".join, parts)), self._text)]

    def loosely(self, value: str) -> list[Place]:
        """Where its letters and digits stand, whatever is between them."""
        wanted = "".join(_LETTERS.findall(value))
        if len(wanted) < _MIN_CHARS:
            return []
        letters, runs, ends = self._letters
        found = []
        for at in _places(letters, wanted):
            first, last = bisect_right(ends, at), bisect_left(ends, at + len(wanted))
            found.append((runs[first][1] - ends[first] + at, runs[last][1] - ends[last] + at + len(wanted)))
        return found

    def may_hold(self, value: str) -> bool:
        """Whether a value that was not found may stand there otherwise written, or a part of it.

        Not every text of a request is in its prompt: metadata, an image's bytes, thoughts that a template drops.
        """
        if _PLAIN.fullmatch(value):
            return False
        is_long = len(value) > _LONG_CHARS
        signs = [value[:_END_CHARS], value[-_END_CHARS:]] if is_long else _SIGNS.findall(value)
        return not signs or any(sign in self._text for sign in signs)

    @cached_property
    def _letters(self) -> tuple[str, list[Place], list[int]]:
        """The text's letters and digits; where their runs lie in the text; where these end in the former."""
        runs = [run.span() for run in _LETTERS.finditer(self._text)]
        letters = "".join([self._text[start:end] for start, end in runs])
        return letters, runs, list(accumulate(end - start for start, end in runs))


def _places(text: str, value: str) -> Iterator[int]:
    """Where it stands, one after the other."""
    at = text.find(value)
    while at >= 0:
        yield at
        at = text.find(value, at + len(value))
