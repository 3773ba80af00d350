"""Samples as rows of tokens. What samples of a row begin with alike stands there, and is computed, once.

A row holds trees of tokens one after another, each in pre-order: all that follows a token in any sample stands in one
run behind it. So one number a token, the place where its run ends, says who may see it:

    the token at i sees the token at j  iff  j <= i < until[j]

Samples that share nothing are trees of their own, and see nothing of each other. Positions count from each sample's own
beginning, so a token's hidden state is what it would be in a row of its own.

Shapes: T places of a row.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EVEN_TOKENS = 1280
"""Row length at which attention by a mask costs as much as everything else, for SmolLM2-135M in bfloat16 on a CPU.

By causality alone it costs half. Wider models have it later: for them, sharing pays sooner than is assumed here.
"""


@dataclass(frozen=True)
class Span:
    """Tokens `[start, end)` of a sample train with `advantage`; `logps` are the logged ones. `start` is at least 1."""

    start: int
    end: int
    logps: tuple[float, ...]
    advantage: float


@dataclass(frozen=True)
class Sample:
    """A chain, cut after its last trained token. Tokens in no span are context."""

    token_ids: tuple[int, ...]
    spans: tuple[Span, ...]

    @property
    def prompt(self) -> tuple[int, ...]:
        """What stands before the first trained token."""
        return self.token_ids[: min(span.start for span in self.spans)]


@dataclass(frozen=True)
class Tree:
    """Samples in which each token of a common beginning stands once.

    `places[s][t]` is where sample s has its token t.
    """

    samples: tuple[Sample, ...]
    token_ids_T: NDArray[np.int64]
    positions_T: NDArray[np.int64]
    until_T: NDArray[np.int64]
    places: tuple[NDArray[np.int64], ...]

    @property
    def size(self) -> int:
        """Tokens that are computed."""
        return len(self.token_ids_T)

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Tree":
        """Each sample shares with the one before it; in order of their tokens, no two share less than they could."""
        size = sum(len(sample.token_ids) for sample in samples)
        ids_T, positions_T, until_T = (np.zeros(size, np.int64) for _ in range(3))
        end, path, places = 0, np.zeros(0, np.int64), []
        before: tuple[int, ...] = ()
        for sample in samples:
            shared = num_shared(before, sample.token_ids)
            new = np.arange(end, end + len(sample.token_ids) - shared)
            until_T[path[shared:]] = end
            ids_T[new] = sample.token_ids[shared:]
            positions_T[new] = np.arange(shared, len(sample.token_ids))
            path, before, end = np.concatenate((path[:shared], new)), sample.token_ids, end + len(new)
            places.append(path)
        until_T[path] = end
        return cls(tuple(samples), ids_T[:end], positions_T[:end], until_T[:end], tuple(places))


def num_shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Tokens that both begin with."""
    num = min(len(one), len(other))
    differ = np.flatnonzero(np.asarray(one[:num]) != np.asarray(other[:num]))
    return int(differ[0]) if len(differ) else num


def trees(samples: Iterable[Sample], max_tokens: int) -> list[Tree]:
    """Samples that begin alike together, as far as that costs less than apart and keeps to `max_tokens` a tree."""
    return [Tree.of(group) for group in _groups(sorted(samples, key=lambda sample: sample.token_ids), max_tokens)]


def _groups(ordered: Iterable[Sample], max_tokens: int) -> Iterator[list[Sample]]:
    held: list[Sample] = []
    size = 0
    for sample in ordered:
        length = len(sample.token_ids)
        joint = size + length - (num_shared(held[-1].token_ids, sample.token_ids) if held else 0)
        apart = cost(size, is_masked=len(held) > 1) + cost(length, is_masked=False)
        if held and (joint > max_tokens or cost(joint, is_masked=True) >= apart):
            yield held
            held, joint = [], length
        held.append(sample)
        size = joint
    if held:
        yield held


def cost(row_tokens: int, *, is_masked: bool) -> float:
    """Of a row, in tokens without attention: each sees the whole row, or half of it by causality alone."""
    return row_tokens * (1.0 + row_tokens / (EVEN_TOKENS if is_masked else 2 * EVEN_TOKENS))


def rows(held: Iterable[Tree], max_tokens: int) -> Iterator[list[list[Tree]]]:
    """Microbatches: lists of rows, each a list of trees. Rows are padded to the longest of their microbatch.

    Longest first, so that a microbatch's rows are alike in length. A row holds several trees where what that saves in
    padding outweighs the mask.
    """
    left = sorted(held, key=lambda tree: -tree.size)
    while left:
        num_rows = max(1, max_tokens // left[0].size)
        plain, rest = [[tree] for tree in left[:num_rows]], left[num_rows:]
        filled, after = _filled(left, num_rows)
        if _cost_per_token(filled) < _cost_per_token(plain):
            plain, rest = filled, after
        yield plain
        left = rest


def _filled(ordered: Sequence[Tree], num_rows: int) -> tuple[list[list[Tree]], list[Tree]]:
    """First-fit decreasing: each tree into the first row with room, or one more of them; and what fitted nowhere."""
    filled: list[list[Tree]] = []
    rest, room = [], [ordered[0].size] * num_rows
    for tree in ordered:
        row = next((number for number, free in enumerate(room) if free >= tree.size), None)
        if row is None:
            rest.append(tree)
            continue
        if row == len(filled):
            filled.append([])
        filled[row].append(tree)
        room[row] -= tree.size
    return filled, rest


def _cost_per_token(filled: Sequence[Sequence[Tree]]) -> float:
    sizes = [sum(tree.size for tree in row) for row in filled]
    is_masked = any(len(tree.samples) > 1 for row in filled for tree in row) or any(len(row) > 1 for row in filled)
    return len(filled) * cost(max(sizes), is_masked=is_masked) / sum(sizes)
