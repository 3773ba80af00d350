"""Chains to padded microbatches.

A chain trains as one sequence: its context is computed once, and each of its segments carries its own advantage.

Shapes: B sequences, T positions (padded on the right).
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.records.events import Chain


@dataclass(frozen=True)
class Span:
    """Tokens `[start, end)` of a sequence train with `advantage`; `logps` are the logged log-probabilities."""

    start: int
    end: int
    logps: tuple[float, ...]
    advantage: float


@dataclass(frozen=True)
class Sample:
    """A chain, cut after its last trained token. Tokens in no span are context."""

    token_ids: tuple[int, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Microbatch:
    """One forward and backward pass. `mask_BT` marks the tokens that train; position 0 never does."""

    token_ids_BT: NDArray[np.int64]
    mask_BT: NDArray[np.bool_]
    logps_BT: NDArray[np.float32]
    advantages_BT: NDArray[np.float32]

    @property
    def num_trained(self) -> int:
        return int(self.mask_BT.sum())


Minibatch = tuple[Microbatch, ...]
"""What one optimiser step trains on."""


def sample_of(chain: Chain, advantages: Mapping[str, float]) -> Sample | None:
    """A chain with the advantages of its traces that train; `None` when none does."""
    spans = tuple(
        Span(segment.start, segment.end, tuple(segment.logprobs), advantages[segment.trace_id])
        for segment in chain.segments
        if segment.trace_id in advantages
    )
    if not spans:
        return None
    return Sample(tuple(chain.token_ids[: max(span.end for span in spans)]), spans)


def minibatches(
    sequences: Iterable[Sample], minibatch_turns: int, microbatch_tokens: int, seed: int
) -> tuple[Minibatch, ...]:
    """Shuffle by `seed`, cut into minibatches of about `minibatch_turns` turns, pad each into microbatches."""
    shuffled = list(sequences)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order of training, no secret
    return tuple(tuple(_microbatches(part, microbatch_tokens)) for part in _parts(shuffled, minibatch_turns))


def _parts(sequences: Sequence[Sample], minibatch_turns: int) -> list[list[Sample]]:
    """As many parts as fit best, alike in turns: a small rest would get an optimiser step of its own."""
    turns = sum(len(sequence.spans) for sequence in sequences)
    num_parts = max(1, round(turns / minibatch_turns))
    parts: list[list[Sample]] = [[] for _ in range(num_parts)]
    before = 0
    for sequence in sequences:
        parts[before * num_parts // turns].append(sequence)
        before += len(sequence.spans)
    return [part for part in parts if part]


def _microbatches(sequences: Iterable[Sample], microbatch_tokens: int) -> Iterator[Microbatch]:
    """Sorted by length, so that padding is small; a sequence above the bound is a microbatch of its own."""
    held: list[Sample] = []
    for sequence in sorted(sequences, key=lambda s: len(s.token_ids)):
        if held and len(sequence.token_ids) * (len(held) + 1) > microbatch_tokens:
            yield _pad(held)
            held = []
        held.append(sequence)
    if held:
        yield _pad(held)


def _pad(sequences: Sequence[Sample]) -> Microbatch:
    shape = (len(sequences), max(len(sequence.token_ids) for sequence in sequences))
    batch = Microbatch(
        np.zeros(shape, np.int64), np.zeros(shape, np.bool_), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    )
    for row, sequence in enumerate(sequences):
        batch.token_ids_BT[row, : len(sequence.token_ids)] = sequence.token_ids
        for span in sequence.spans:
            batch.mask_BT[row, span.start : span.end] = True
            batch.logps_BT[row, span.start : span.end] = span.logps
            batch.advantages_BT[row, span.start : span.end] = span.advantage
    return batch
