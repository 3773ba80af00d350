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

LEAST_SHARED = 0.08
"""Of what a sample adds to those it shares with, the share that it must save, or it goes into a tree of its own.

What branches off attends by a mask, half of which is wasted over 128 places (`trainer.learner.attention`): for
SmolLM2-135M in bfloat16 on a CPU, 64 places seen in vain cost 0.08 of a token. For wider models it is less.
"""


LONG_SHARE = 0.5
"""Of a bound on trees: what all samples of one begin with, where longer, comes on top and is not computed again.

What is shorter leaves as much room for what follows it, so repeating it costs at most about as much again.
"""


@dataclass(frozen=True)
class Hint:
    """What came after a turn and corrects it: the tokens from its reply's last, which ends it, to the next reply.

    `weight` is how much each of the turn's tokens counts, beside `trainer.loss.hint_weight`.
    """

    token_ids: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class Span:
    """Tokens `[start, end)` of a sample train with `advantage`; `logps` are the logged ones. `start` is at least 1."""

    start: int
    end: int
    logps: tuple[float, ...]
    advantage: float
    hint: Hint | None = None


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
    """Samples that begin alike together, as far as that costs less than apart and keeps to `max_tokens` a tree.

    A common beginning of more than `LONG_SHARE` of that comes on top.
    """
    return [Tree.of(group) for group in _groups(sorted(samples, key=lambda sample: sample.token_ids), max_tokens)]


def _groups(ordered: Iterable[Sample], max_tokens: int) -> Iterator[list[Sample]]:
    held: list[Sample] = []
    size = common = 0
    for sample in ordered:
        shared = num_shared(held[-1].token_ids, sample.token_ids) if held else 0
        added, left = len(sample.token_ids) - shared, min(common, shared)
        on_top = left if left > LONG_SHARE * max_tokens else 0
        if held and (size + added > max_tokens + on_top or shared <= LEAST_SHARED * added):
            yield held
            held = []
        if not held:
            size, added, left = 0, len(sample.token_ids), len(sample.token_ids)
        held.append(sample)
        size, common = size + added, left
    if held:
        yield held


def rows(held: Iterable[Tree], max_tokens: int) -> list[list[Tree]]:
    """Rows of at most `max_tokens`, no padding; a tree above that has one of its own.

    First-fit decreasing: the longest first, each into the first row with room.
    """
    filled: list[list[Tree]] = []
    room: list[int] = []
    for tree in sorted(held, key=lambda tree: -tree.size):
        number = next((number for number, free in enumerate(room) if free >= tree.size), len(filled))
        if number == len(filled):
            filled.append([])
            room.append(max_tokens)
        filled[number].append(tree)
        room[number] -= tree.size
    return filled
