"""Chains to microbatches.

A chain trains as one sequence: its context is computed once, and each of its segments carries its own advantage.

Shapes: B rows, T places (padded on the right), N trained tokens.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from infra.config import Packing
from ingest.records.events import Chain, Segment
from trainer.learner.packing import Hint, Sample, Span, Tree, rows, trees

__all__ = ["Hint", "Microbatch", "Minibatch", "Sample", "Span", "laid_out", "minibatches", "sample_of"]

_NONE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Hinted:
    """Tokens from `start` on of a microbatch's N, as they stand behind their hint: the one span of `sample`."""

    sample: Sample
    start: int
    weight: float


@dataclass(frozen=True)
class Taught:
    """Log-probabilities of a microbatch's tokens behind their hints, and their weights: 0 where there is none."""

    logps_N: NDArray[np.float32]
    weights_N: NDArray[np.float32]


@dataclass(frozen=True)
class Microbatch:
    """One forward and backward pass.

    `sources_N` are places in the flattened B x T whose hidden states predict `targets_N`. A place's `until_BT` is where
    the run of those that may see it ends (`trainer.learner.packing`); with `is_causal`, causal attention and the places
    themselves as positions are exact without it, and else there is one row. `turns_N` count the microbatch's turns.
    """

    token_ids_BT: NDArray[np.int64]
    positions_BT: NDArray[np.int64]
    until_BT: NDArray[np.int64]
    is_causal: bool
    sources_N: NDArray[np.int64]
    targets_N: NDArray[np.int64]
    logps_N: NDArray[np.float32]
    advantages_N: NDArray[np.float32]
    turns_N: NDArray[np.int64]
    hinted: tuple[Hinted, ...] = ()
    taught: Taught | None = None

    @property
    def num_trained(self) -> int:
        return len(self.targets_N)

    @property
    def num_turns(self) -> int:
        return int(self.turns_N[-1]) + 1


Minibatch = tuple[Microbatch, ...]
"""What one optimiser step trains on."""


def sample_of(chain: Chain, advantages: Mapping[str, float], hints: Mapping[str, float] = _NONE) -> Sample | None:
    """A chain with the advantages of its traces that train; `None` when none does. `hints` are those that are
    corrected by what comes next, with their weights."""
    spans = tuple(
        Span(
            segment.start,
            segment.end,
            tuple(segment.logprobs),
            advantages[segment.trace_id],
            _hint(chain, segment, then, hints.get(segment.trace_id)),
        )
        for segment, then in zip_longest(chain.segments, chain.segments[1:])
        if segment.trace_id in advantages
    )
    if not spans:
        return None
    return Sample(tuple(chain.token_ids[: max(span.end for span in spans)]), spans)


def _hint(chain: Chain, segment: Segment, then: Segment | None, weight: float | None) -> Hint | None:
    return Hint(tuple(chain.token_ids[segment.end - 1 : then.start]), weight) if then and weight else None


def minibatches(
    samples: Iterable[Sample],
    minibatch_turns: int,
    microbatch_tokens: int,
    seed: int,
    packing: Packing = Packing.SHARED,
) -> tuple[Minibatch, ...]:
    """Shuffle by `seed`, cut into minibatches of about `minibatch_turns` turns, lay each out in microbatches.

    Samples of one prompt stay beside each other, so that it can be shared.
    """
    families: dict[object, list[Sample]] = {}
    for number, sample in enumerate(samples):
        families.setdefault(sample.prompt if packing is Packing.SHARED else number, []).append(sample)
    shuffled = list(families.values())
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order of training, no secret
    parts = _parts([sample for family in shuffled for sample in family], minibatch_turns)
    return tuple(tuple(map(_laid_out, _rows(part, microbatch_tokens, packing))) for part in parts)


def laid_out(
    samples: Sequence[Sample], microbatch_tokens: int, packing: Packing
) -> tuple[tuple[Microbatch, ...], list[Sample]]:
    """Samples in microbatches, and in the order in which these have them."""
    found = list(_rows(samples, microbatch_tokens, packing))
    order = [sample for held in found for row in held for tree in row for sample in tree.samples]
    return tuple(map(_laid_out, found)), order


def _parts(samples: Sequence[Sample], minibatch_turns: int) -> list[list[Sample]]:
    """As many parts as fit best, alike in turns: a small rest would get an optimiser step of its own."""
    turns = sum(len(sample.spans) for sample in samples)
    num_parts = max(1, round(turns / minibatch_turns))
    parts: list[list[Sample]] = [[] for _ in range(num_parts)]
    before = 0
    for sample in samples:
        parts[before * num_parts // turns].append(sample)
        before += len(sample.spans)
    return [part for part in parts if part]


def _rows(samples: Sequence[Sample], microbatch_tokens: int, packing: Packing) -> Iterator[list[list[Tree]]]:
    """Microbatches of at most `microbatch_tokens` places; a tree that is above the bound is one of its own."""
    if packing is Packing.ROWS:
        return _padded(samples, microbatch_tokens)
    found = trees(samples, microbatch_tokens) if packing is Packing.SHARED else [Tree.of([one]) for one in samples]
    return ([row] for row in rows(found, microbatch_tokens))


def _padded(samples: Iterable[Sample], microbatch_tokens: int) -> Iterator[list[list[Tree]]]:
    """A row for each sample; sorted by length, so that padding is small."""
    held: list[list[Tree]] = []
    for sample in sorted(samples, key=lambda s: len(s.token_ids)):
        if held and len(sample.token_ids) * (len(held) + 1) > microbatch_tokens:
            yield held
            held = []
        held.append([Tree.of([sample])])
    if held:
        yield held


def _laid_out(held: Sequence[Sequence[Tree]]) -> Microbatch:
    length = max(sum(tree.size for tree in row) for row in held)
    ids_BT, positions_BT = (np.zeros((len(held), length), np.int64) for _ in range(2))
    until_BT = np.full((len(held), length), length, np.int64)
    spans: list[tuple[Span, NDArray[np.int64], Sample]] = []
    for number, row in enumerate(held):
        start = 0
        for tree in row:
            here = slice(start, start + tree.size)
            ids_BT[number, here] = tree.token_ids_T
            positions_BT[number, here] = tree.positions_T
            until_BT[number, here] = start + tree.until_T
            for sample, places in zip(tree.samples, tree.places, strict=True):
                spans += [(span, number * length + start + places, sample) for span in sample.spans]
            start += tree.size
    return Microbatch(
        ids_BT,
        positions_BT,
        until_BT,
        is_causal=all(len(row) == 1 and len(row[0].samples) == 1 for row in held),
        sources_N=np.concatenate([places[span.start - 1 : span.end - 1] for span, places, _ in spans]),
        targets_N=np.concatenate([np.asarray(own.token_ids[s.start : s.end], np.int64) for s, _, own in spans]),
        logps_N=np.concatenate([np.asarray(span.logps, np.float32) for span, _, _ in spans]),
        advantages_N=np.repeat(
            np.asarray([span.advantage for span, _, _ in spans], np.float32),
            [span.end - span.start for span, _, _ in spans],
        ),
        turns_N=np.repeat(np.arange(len(spans)), [span.end - span.start for span, _, _ in spans]),
        hinted=tuple(_hinted((span, sample) for span, _, sample in spans)),
    )


def _hinted(owned: Iterable[tuple[Span, Sample]]) -> Iterator[Hinted]:
    """The next turn's prompt, token by token but for the corrected reply, and then that."""
    start = 0
    for span, sample in owned:
        if span.hint is not None:
            prompt = sample.token_ids[: span.start] + span.hint.token_ids
            reply = sample.token_ids[span.start : span.end]
            again = Span(len(prompt), len(prompt) + len(reply), (), 0.0)
            yield Hinted(Sample(prompt + reply, (again,)), start, span.hint.weight)
        start += span.end - span.start
