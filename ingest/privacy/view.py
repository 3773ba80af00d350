"""A text as the finders see it."""

import re
from collections.abc import Callable, Iterable
from functools import cached_property

Place = tuple[int, int]
Seen = dict[tuple[str, ...], tuple[str, ...]]
"""Needles -> those of them that a text may have."""
GAP = r" .\-\u00a0\u202f\u2010-\u2015"
"""What people put between groups of digits, as it stands inside a character class."""
LEFT = r"(?<!\w)(?<!\w[.,\-])"  # not inside a word, a UUID, a decimal number
RIGHT = r"(?!\w)(?![.,\-]\w)"
_RUN = re.compile(rf"[0-9][0-9\t()/\u3000{GAP}]{{5,}}[0-9]")
_DIFF = re.compile(r"^(?:-\d|@@ )", re.MULTILINE)


class View:
    """A text as the finders see it, character for character as long as the text itself.

    Escapes for line breaks and quotes, as JSON inside text has them, read as what they stand for: otherwise the `n`
    of `\\n` would be taken for the first letter of an address.
    """

    def __init__(self, text: str, seen: Seen | None = None) -> None:
        """`seen` is shared by the views of one text and, later, of its parts: what the whole lacks, no part has."""
        self.text = _unescaped(text) if "\\" in text else text
        self._seen = {} if seen is None else seen

    def present(self, needles: tuple[str, ...], is_lower: bool = False) -> tuple[str, ...]:
        """Those of the needles that may stand in the text: the few that a look at their places is worth."""
        if needles not in self._seen:
            text = self.lower if is_lower else self.text
            self._seen[needles] = tuple([needle for needle in needles if needle in text])
        return self._seen[needles]

    @cached_property
    def lower(self) -> str:
        """In small letters. A letter whose small form is longer would move what follows, and stays."""
        lower = self.text.lower()
        if len(lower) == len(self.text):
            return lower
        return "".join([small if len(small := char.lower()) == 1 else char for char in self.text])

    @cached_property
    def runs(self) -> tuple[Place, ...]:
        """Maximal runs of seven and more digits, with what may stand between them."""
        return tuple(run.span() for run in _RUN.finditer(self.text))

    @cached_property
    def has_diff(self) -> bool:
        """Whether lines with numbers are removed in it, as in a patch."""
        return _DIFF.search(self.text) is not None

    def before(self, start: int, num_chars: int) -> str:
        """What was said shortly before `start`, in small letters."""
        return self.lower[max(0, start - num_chars) : start]


def _unescaped(text: str) -> str:
    for escape, meant in (("\\n", "  "), ("\\r", "  "), ("\\t", "  "), ('\\"', '""')):
        text = text.replace(escape, meant)
    return text


Finder = Callable[[View], Iterable[Place]]
"""Where something is in a text; places may overlap and need no order."""
