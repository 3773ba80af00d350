"""Words: which say what a text is about, and with which people mark decisions, open tasks and finished ones."""

import re

Words = frozenset[str]

WORD = re.compile(r"[^\W\d_]{2,}")
_ITEM = re.compile(r"[,;|]\s+")

_FUNCTION = """
a an and are as at be been but by can did do does for from had has have he her his i if in into is it its me my no not
of on or our she so than that the their them then there they this to us was we were what when where which who will with
would you your
"""
_COMMON = """
about after again agreed all also am any because before being both chose conversation could decided decision done each
either everything few first following gets give given go goes going got here him how just keep kept later let lets may
might more most must need needed needs next note noted nothing now okay only open other out over part please rather
instead remaining remains said same say says settled several should some still stays such summary sure talked task tasks
thank thanks things those todo too under until up upon user users assistant very want wants way well went were while
whole why work yet yes
"""
FUNCTION = frozenset(_FUNCTION.split())
"""Words that sentences are made with."""
EMPTY = FUNCTION | frozenset(_COMMON.split())
"""Words that tell nothing of what a text is about."""

_ENDINGS = ("ations", "ation", "ings", "ing", "ied", "ies", "ers", "er", "ed", "es", "e", "s", "y")

_ALWAYS = r"\btodo\b|\bto[- ]do\b|\bto be done\b|\bleft to do\b|\[ \]|\bremain(?:s|ing)?\b"
_STILL = r"\bstill\b(?=.*\b(?:need|open|missing|to|must|has|have)\b)|\b(?:pending|outstanding|unfinished)\b"
_NEXT = r"\bnext\b(?=\s*(?:steps?|up|:|,|i|we)\b|\s*:)|\bopen (?:tasks?|items?|points?|questions?|issues?)\b"
_NOT_YET = r"\bnot (?:yet )?(?:done|finished|started)\b|\balso (?:have|has|need) to\b"
_LATER = r"\b(?:later|also|then) (?:\w+ ){1,3}?(?:must|has to|have to|need to|needs to)\b"
OPEN = re.compile("|".join((_ALWAYS, _STILL, _NEXT, _NOT_YET, _LATER)), re.IGNORECASE)
DONE = re.compile(r"\b(?:done|finished|completed|fixed|added|updated|removed|written)\b|\[x\]", re.IGNORECASE)

_NOTHING_LEFT = r"\bnothing (?:is |was |else )?(?:left|open|remain\w*|missing)\b|\ball done\b|\bno tasks?\b"
_NONE_OPEN = r"\bno (?:more )?(?:open|remaining|outstanding|pending|unfinished) \w+"
_ALL = r"\b(?:everything|all(?: \w+){0,3}?) (?:is|are|was|were|has been|have been) (?:now )?"
_ALL_ENDED = rf"{_ALL}(?:done|finished|completed?|resolved|settled)\b"
ALL_DONE = re.compile("|".join((_NOTHING_LEFT, _NONE_OPEN, _ALL_ENDED)), re.IGNORECASE)

_DECIDED = r"\b(?:decid\w+|decisions?|agreed|agreement|chose|chosen|settled|opted|prefer\w*)\b"
_RATHER = r"\b(?:instead of|rather than|let'?s|let us|will not|won'?t|go with|stick\w* (?:to|with))\b"
DECISION = re.compile(f"{_DECIDED}|{_RATHER}", re.IGNORECASE)


def stem(word: str) -> str:
    """The same for a word's usual forms, and crude: its ending off, six letters at most."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)][:6]
    return word[:6]


def content(text: str) -> Words:
    """Stems of a text's content words."""
    return frozenset(stem(word) for word in WORD.findall(text.lower()) if word not in EMPTY)


def is_list(text: str) -> bool:
    """Words in a row that no sentence holds together; values are blanks in the text.

    Six items or more, most of one word or one value, three of one word; or ten words of which nearly none is one that
    sentences are made with. "Files: a.py, b.py, ..." is no such list: its items are values under one label.
    """
    items = [len(WORD.findall(item)) for item in _ITEM.split(text)]
    if len(items) >= 6:
        return sum(num <= 1 for num in items) > 0.6 * len(items) and items.count(1) >= 3
    said = [word for word in re.findall(r"[^\W\d_]+", text.lower()) if len(word) > 1 or word in FUNCTION]
    return len(said) >= 10 and sum(word in FUNCTION for word in said) < 0.1 * len(said)
