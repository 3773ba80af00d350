"""What an engine answered to a task, and looking into it. Pure."""

import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Any

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool in a reply; `arguments` is JSON text as the engine gave it."""

    tool: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """An answer. `finish_reason` as the OpenAI API says it."""

    text: str
    finish_reason: str = "stop"
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Declined:
    """An engine does not take a task: status 4xx, such as a context that is too long for it."""

    status: int
    why: str


def last_number(text: str) -> float | None:
    """The last number in a text, as people write them: `1,234.5` is one."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def json_in(text: str) -> Any:
    """The value that a reply is, or holds in its first fence.

    Raises:
        ValueError: it is not JSON.
    """
    fenced = _FENCED.search(text)
    return json.loads(fenced.group(1) if fenced else text)


def script_share(text: str, script: str) -> float:
    """Share of a text's letters that are of a script, by their names in Unicode; 0 where it has no letters."""
    letters = [letter for letter in text if letter.isalpha()]
    prefix = f"{script.upper()} "
    return sum(unicodedata.name(letter, "").startswith(prefix) for letter in letters) / max(1, len(letters))


def most_repeated(text: str, num_words: int) -> int:
    """How often the most frequent run of `num_words` words stands in a text."""
    words = text.casefold().split()
    runs = Counter(zip(*(words[n:] for n in range(num_words)), strict=False))
    return max(runs.values(), default=0)
