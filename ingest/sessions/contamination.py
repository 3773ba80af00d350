"""Whether a turn holds text of an evaluation task: by n-grams of words against the files that a configuration names.

As GPT-3 was checked (Brown et al. 2020, arXiv:2005.14165, appendix C): words in lower case without punctuation, runs of
13 of them; n-grams that more than ten passages share are a form and no task, and are left out. A passage of 8 to 12
words is one n-gram as a whole; a shorter one cannot be told from common speech and is not looked for. A turn is
contaminated when it holds at least the share `overlap` of a passage's n-grams.

A passage is a string in a JSON Lines or YAML file, at any depth, or a paragraph of any other file. Words and n-grams
are kept as 64-bit hashes in sorted arrays, 12 bytes each: `MAX_NGRAMS` of them are 60 MB, and some five times that
while they are sorted. Everything here but reading the files is pure.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from infra.config import Config, ContaminationConfig
from infra.errors import ConfigError
from ingest.records.events import Trajectory

NUM_WORDS = 13
MIN_WORDS = 8
MAX_SHARED_BY = 10
MAX_NGRAMS = 5_000_000

_WORD = re.compile(r"\w+")
_KEY = "ingest.contamination.tasks"


@dataclass(frozen=True)
class _Table:
    """The n-grams of one length: sorted hashes, and the passage that each is of."""

    num_words: int
    hashes: NDArray[np.uint64]
    passages: NDArray[np.uint32]


@dataclass(frozen=True)
class TaskIndex:
    """The n-grams of all passages. `sizes[p]` is how many of passage p are looked for, `files[p]` its file's name."""

    tables: tuple[_Table, ...]
    sizes: NDArray[np.uint32]
    files: tuple[str, ...]
    file_of: NDArray[np.uint16]
    overlap: float

    def find(self, text: str) -> str | None:
        """The name of a file of which `text` holds a passage, or enough of one; the first in the configuration."""
        words = _hashed_words(text)
        hits = np.zeros(len(self.sizes), np.uint32)
        for table in self.tables:
            grams = np.unique(_ngrams(words, table.num_words))
            first, last = (np.searchsorted(table.hashes, grams, side) for side in ("left", "right"))
            for start, end in zip(first[first < last], last[first < last], strict=True):
                hits[table.passages[start:end]] += 1
        found = np.flatnonzero((hits > 0) & (hits >= self.overlap * self.sizes))
        return self.files[self.file_of[found].min()] if len(found) else None

    def contaminated(self, trajectory: Trajectory) -> dict[str, str]:
        """Trace id -> file, of every turn that holds task text or goes on from one that does: it is in its context."""
        found: dict[str, str] = {}
        for turn in trajectory.turns:
            own = "\n".join([*(message.text for message in turn.messages), turn.reply])
            file = self.find(own) or found.get(turn.parent or "")
            if file:
                found[turn.trace_id] = file
        return found


def index_of(config: ContaminationConfig) -> TaskIndex | None:
    """The index of the files that the configuration names; `None` where it names none.

    Raises:
        ConfigError: a file cannot be read, has nothing to look for, or all of them have too much.
    """
    if not config.tasks:
        return None
    return build([(Path(name).name, list(_passages_of(Path(name)))) for name in config.tasks], config.overlap)


def require_tasks(config: Config) -> None:
    """A check of `onstream check`. Raises `ConfigError`."""
    index_of(config.ingest.contamination)


def build(files: Sequence[tuple[str, Iterable[str]]], overlap: float) -> TaskIndex:
    """The index of (file's name, passages).

    Raises:
        ConfigError: a file has no passage of `MIN_WORDS` words, or there are more than `MAX_NGRAMS` n-grams.
    """
    held: dict[int, list[tuple[NDArray[np.uint64], int]]] = {}
    file_of: list[int] = []
    num_ngrams = 0
    for number, (name, passages) in enumerate(files):
        before = len(file_of)
        for passage in passages:
            words = _hashed_words(passage)
            if len(words) < MIN_WORDS:
                continue
            length = min(NUM_WORDS, len(words))
            grams = np.unique(_ngrams(words, length))
            held.setdefault(length, []).append((grams, len(file_of)))
            file_of.append(number)
            num_ngrams += len(grams)
            if num_ngrams > MAX_NGRAMS:
                raise ConfigError(f"{_KEY}: at most {MAX_NGRAMS:,} runs of words fit, {name} goes beyond")
        if len(file_of) == before:
            raise ConfigError(f"{_KEY}: {name} must hold a passage of {MIN_WORDS} words or more, got none")
    tables = tuple(_table(length, entries) for length, entries in sorted(held.items()))
    sizes = np.bincount(np.concatenate([table.passages for table in tables]), minlength=len(file_of))
    names = tuple(name for name, _ in files)
    return TaskIndex(tables, sizes.astype(np.uint32), names, np.array(file_of, np.uint16), overlap)


def _table(num_words: int, entries: Sequence[tuple[NDArray[np.uint64], int]]) -> _Table:
    hashes = np.concatenate([grams for grams, _ in entries])
    passages = np.concatenate([np.full(len(grams), number, np.uint32) for grams, number in entries])
    order = np.argsort(hashes, kind="stable")
    hashes, passages = hashes[order], passages[order]
    edges = np.flatnonzero(np.diff(hashes, prepend=~hashes[:1], append=~hashes[-1:]))
    counts = np.diff(edges)
    is_kept = np.repeat(counts <= MAX_SHARED_BY, counts)
    return _Table(num_words, hashes[is_kept], passages[is_kept])


def _hashed_words(text: str) -> NDArray[np.uint64]:
    known: dict[str, int] = {}
    words = _WORD.findall(text.casefold())
    for word in words:
        if word not in known:
            known[word] = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
    return np.array([known[word] for word in words], np.uint64)


def _ngrams(words: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """A hash of every `length` successive words; empty where there are fewer."""
    num = max(0, len(words) - length + 1)
    grams = np.zeros(num, np.uint64)
    for position in range(length):
        grams = grams * np.uint64(0x9E3779B97F4A7C15) + words[position : position + num]
    return grams


def _passages_of(path: Path) -> Iterator[str]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{_KEY}: {path}: not readable as text: {exc}") from exc
    if path.suffix in (".yaml", ".yml"):
        try:
            yield from _strings(yaml.safe_load(text))
        except yaml.YAMLError as exc:
            raise ConfigError(f"{_KEY}: {path}: must be YAML: {exc}") from exc
        return
    if path.suffix not in (".jsonl", ".ndjson", ".json"):
        yield from re.split(r"\n\s*\n", text)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield from _strings(json.loads(line))
            except ValueError as exc:
                raise ConfigError(f"{_KEY}: {path}: line {number} must be JSON: {exc}") from exc


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
