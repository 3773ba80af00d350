"""What both learners train on: samples, and the same as one prompt and completion a trained turn.

Tokens are drawn at random: what a step costs does not depend on which they are. Logged log-probabilities are the
model's own in float32, with noise like that between an engine and a trainer, so that ratios are near 1 as in life.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trainer.learner.packing import Sample, Span

NOISE = 0.02  # nats, standard deviation


@dataclass(frozen=True)
class Row:
    """A trained turn as TRL has it: a prompt, a completion, one advantage."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    logps: tuple[float, ...]
    advantage: float


@dataclass(frozen=True)
class Shape:
    """How many tokens there are of what."""

    single: int = 8  # turns, each with a prompt of its own
    prompt: tuple[int, int] = (60, 180)
    sessions: int = 1
    turns: int = 10
    told: tuple[int, int] = (24, 40)  # what a user or a tool says in between
    group: int = 8
    shared: int = 512
    reply: tuple[int, int] = (32, 80)


def draw(shape: Shape, vocabulary: int, seed: int = 0) -> dict[str, list[Sample]]:
    """The cases by name, without log-probabilities yet."""
    make = _Make(random.Random(seed), vocabulary)
    prompt = make.tokens(shape.shared, shape.shared)
    return {
        "single": [make.sample([make.tokens(*shape.prompt)], shape.reply) for _ in range(shape.single)],
        "sessions": [
            make.sample(
                [make.tokens(*(shape.told if turn else shape.prompt)) for turn in range(shape.turns)], shape.reply
            )
            for _ in range(shape.sessions)
        ],
        "groups": [make.sample([prompt], shape.reply) for _ in range(shape.group)],
    }


@dataclass(frozen=True)
class _Make:
    rng: random.Random
    vocabulary: int

    def tokens(self, low: int, high: int) -> tuple[int, ...]:
        return tuple(self.rng.randrange(self.vocabulary) for _ in range(self.rng.randint(low, high)))

    def sample(self, told: Sequence[tuple[int, ...]], reply: tuple[int, int]) -> Sample:
        """What was told and replied by turns, in one chain."""
        ids: tuple[int, ...] = ()
        spans = []
        for words in told:
            answer = self.tokens(*reply)
            start = len(ids) + len(words)
            ids += words + answer
            spans.append(Span(start, len(ids), (0.0,) * len(answer), self.rng.gauss(0.0, 1.0)))
        return Sample(ids, tuple(spans))


def rows(samples: Sequence[Sample]) -> list[Row]:
    """A row for each trained turn; all that came before is its prompt."""
    return [
        Row(sample.token_ids[: span.start], sample.token_ids[span.start : span.end], span.logps, span.advantage)
        for sample in samples
        for span in sample.spans
    ]


def num_trained(samples: Sequence[Sample]) -> int:
    return sum(span.end - span.start for sample in samples for span in sample.spans)


def logged(samples: Sequence[Sample], logps: Sequence[Sequence[float]], seed: int = 0) -> list[Sample]:
    """The samples with log-probabilities, noise added: those of each sample's tokens, the first's left out."""
    rng = random.Random(seed)
    return [
        Sample(
            sample.token_ids,
            tuple(
                Span(
                    s.start, s.end, tuple(p + rng.gauss(0.0, NOISE) for p in own[s.start - 1 : s.end - 1]), s.advantage
                )
                for s in sample.spans
            ),
        )
        for sample, own in zip(samples, logps, strict=True)
    ]


def save(samples: Sequence[Sample], path: Path) -> None:
    path.write_text(json.dumps([asdict(sample) for sample in samples]))


def load(path: Path) -> list[Sample]:
    return [
        Sample(tuple(sample["token_ids"]), tuple(Span(**{**s, "logps": tuple(s["logps"])}) for s in sample["spans"]))
        for sample in json.loads(path.read_text())
    ]
