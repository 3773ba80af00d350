"""Corrected turns read once more, behind what corrects them: what the policy would have said had it known.

The teacher is the policy as an update begins, without gradient. It reads the prompt of the turn that came next, with
the correction in the engine's own tokens, and then the corrected reply. No template is needed and nothing is tokenised.
What it makes of each token is what `trainer.learner.losses` pulls the turn to.

Of the corrected reply that prompt keeps the last token alone, the end of the message. With all of it the teacher copies
what it has just read: to SmolLM2-135M a corrected reply is then likelier and not less likely (docs/training.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from infra.config import Packing
from trainer.learner.batching import Microbatch, Minibatch, Sample, Taught, laid_out


@dataclass(frozen=True)
class Lesson:
    """Minibatches with what their hints teach, and how many turns that is.

    `gap` is the mean over taught tokens of the logged log-probability less the teacher's; `None` without any.
    """

    minibatches: tuple[Minibatch, ...]
    num_taught: int = 0
    gap: float | None = None


def lesson(
    minibatches: Sequence[Minibatch],
    microbatch_tokens: int,
    packing: Packing,
    logps_of: Callable[[tuple[Microbatch, ...]], NDArray[np.float32]],
) -> Lesson:
    """`logps_of` gives the log-probabilities of all trained tokens of some microbatches, in order.

    A row has one token more than the next turn's prompt, and that turn has a reply: it fits into the model's context.
    """
    hinted = [one.sample for minibatch in minibatches for microbatch in minibatch for one in microbatch.hinted]
    if not hinted:
        return Lesson(tuple(minibatches))
    rows, order = laid_out(hinted, microbatch_tokens, packing)
    ends = np.cumsum([_length(sample) for sample in order])
    parts = np.split(logps_of(rows), ends[:-1])
    known = {id(sample): logps for sample, logps in zip(order, parts, strict=True)}
    taught = tuple(tuple(_taught(microbatch, known) for microbatch in minibatch) for minibatch in minibatches)
    return Lesson(taught, len(hinted), _gap(taught))


def _taught(microbatch: Microbatch, known: dict[int, NDArray[np.float32]]) -> Microbatch:
    if not microbatch.hinted:
        return microbatch
    logps_N, weights_N = (np.zeros(microbatch.num_trained, np.float32) for _ in range(2))
    for one in microbatch.hinted:
        here = slice(one.start, one.start + _length(one.sample))
        logps_N[here], weights_N[here] = known[id(one.sample)], one.weight
    return replace(microbatch, taught=Taught(logps_N, weights_N))


def _gap(minibatches: Sequence[Minibatch]) -> float:
    told = [(one.logps_N, one.taught) for minibatch in minibatches for one in minibatch if one.taught is not None]
    return float(np.concatenate([(own_N - one.logps_N)[one.weights_N > 0] for own_N, one in told]).mean())


def _length(sample: Sample) -> int:
    (span,) = sample.spans
    return span.end - span.start
