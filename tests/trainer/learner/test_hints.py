"""Corrected turns read behind what corrects them, and what a tiny model learns from that."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from infra.config import LossConfig, Packing, TrainerConfig
from ingest.records.events import Reward
from trainer.learner.batching import Hint, Microbatch, Minibatch, Sample, Span, minibatches, sample_of
from trainer.learner.hints import Lesson, lesson
from trainer.learner.learner import Learner

TAUGHT = LossConfig(hint_weight=1.0)
PACKINGS = pytest.mark.parametrize("packing", list(Packing))


def chains(num: int = 6, seed: int = 0) -> list[Sample]:
    """Of two turns each, the first of them corrected but in every third chain."""
    make = random.Random(seed)

    def tokens(num: int) -> tuple[int, ...]:
        return tuple(make.randrange(128) for _ in range(num))

    made = []
    for number in range(num):
        ids, user = tokens(10 + number), tokens(4)
        reply = tuple(make.uniform(-6.0, -3.0) for _ in range(3 + number % 2))
        start, end = len(ids), len(ids) + len(reply)
        ids += tokens(len(reply)) + user + tokens(2)
        hint = None if number % 3 == 2 else Hint(ids[end - 1 : end + 4], 0.25 + number / 8)
        first = Span(start, end, reply, 0.0, hint)
        made.append(Sample(ids, (first, Span(end + 4, end + 6, (-4.0, -5.0), 0.0))))
    return made


def cut(samples: Sequence[Sample], packing: Packing = Packing.SHARED, tokens: int = 60) -> tuple[Minibatch, ...]:
    return minibatches(samples, 6, tokens, seed=0, packing=packing)


def read_again(sample: Sample) -> Sample:
    """The next prompt without the corrected reply but for its last token, and then that, from the sample's chain."""
    span, after = sample.spans
    ids = list(sample.token_ids[: after.start])
    reply = ids[span.start : span.end]
    del ids[span.start : span.end - 1]
    return Sample((*ids, *reply), (Span(len(ids), len(ids) + len(reply), (), 0.0),))


def full_logps(learner: Learner, sample: Sample) -> torch.Tensor:
    """Log-probabilities of a sample's first span, by the model's own full logits."""
    with torch.no_grad():
        logps_TV = learner.model(torch.tensor([sample.token_ids])).logits[0].log_softmax(-1)
    span = sample.spans[0]
    return torch.stack([logps_TV[place - 1, sample.token_ids[place]] for place in range(span.start, span.end)])


def ends(microbatches: Sequence[Microbatch]) -> NDArray[np.float32]:
    """For each trained token its own number and, behind the point, that of tokens before it in its row of its own."""
    return np.concatenate(
        [
            microbatch.targets_N + microbatch.positions_BT.reshape(-1)[microbatch.sources_N] / 1000
            for microbatch in microbatches
        ]
    ).astype(np.float32)


def taught_by_turn(found: Lesson) -> dict[tuple[int, ...], tuple[list[float], list[float]]]:
    """What each trained turn is taught, by its tokens: log-probabilities and weights."""
    held = {}
    for microbatch in (microbatch for minibatch in found.minibatches for microbatch in minibatch):
        for turn in range(microbatch.num_turns):
            own_N = microbatch.turns_N == turn
            taught = microbatch.taught
            told = ([], []) if taught is None else (taught.logps_N[own_N].tolist(), taught.weights_N[own_N].tolist())
            held[tuple(microbatch.targets_N[own_N].tolist())] = told
    return held


def test_a_hint_is_what_stands_between_a_reply_and_the_next_whether_or_not_that_trains(
    reward_of: Callable[..., Reward],
) -> None:
    reward = reward_of("s", [0.0, 1.0, 1.0], token=50)
    (chain,) = reward.trajectory.chains
    first, second, third = reward.trace_ids
    made = sample_of(chain, {first: 0.5, third: 1.0}, {first: 0.75, third: 1.0})
    assert made is not None
    assert [span.hint for span in made.spans] == [Hint((50, 1, 1, 1), 0.75), None], "nothing comes after the third"
    alone = sample_of(chain, {second: 0.5}, {second: 1.0})
    assert alone is not None
    ((microbatch,),) = minibatches([alone], 8, 2048, seed=0)
    (hinted,) = microbatch.hinted
    assert hinted.sample.token_ids == (1, 1, 1, 50, 50, 1, 1, 1, 51, 1, 1, 1, 51, 51)
    assert [(span.start, span.end) for span in hinted.sample.spans] == [(12, 14)]


@PACKINGS
@pytest.mark.parametrize("tokens", [5, 30, 60, 4096])
def test_each_token_is_taught_what_it_is_behind_its_own_hint(packing: Packing, tokens: int) -> None:
    samples = chains()
    found = lesson(cut(samples, packing), tokens, packing, ends)
    assert found.num_taught == 4
    told = taught_by_turn(found)
    for sample in samples:
        first, more = ([sample.token_ids[at] for at in range(span.start, span.end)] for span in sample.spans)
        logps, weights = told[tuple(first)]
        hint = sample.spans[0].hint
        if hint is None:
            assert not any(weights)
            continue
        start = read_again(sample).spans[0].start
        assert logps == pytest.approx([token + (start + n - 1) / 1000 for n, token in enumerate(first)], abs=1e-4)
        assert weights == pytest.approx([hint.weight] * len(first))
        assert not any(told[tuple(more)][1]), "the turn that follows is not corrected"


@PACKINGS
def test_the_teacher_is_the_policy_itself_behind_the_next_prompt(
    tiny_model: Path, learner_config: TrainerConfig, packing: Packing
) -> None:
    own = learner_config.model_copy(update={"loss": TAUGHT, "packing": packing, "microbatch_tokens": 60})
    learner, samples = Learner(tiny_model, own), chains()
    found = learner._lesson(cut(samples, packing))
    assert found is not None
    told = taught_by_turn(found)
    for sample in samples:
        if sample.spans[0].hint is not None:
            again = read_again(sample)
            logps, _ = told[again.token_ids[again.spans[0].start :]]
            assert torch.allclose(torch.tensor(logps), full_logps(learner, again), atol=1e-5)


def corrected_turn(learner: Learner) -> tuple[Sample, Sample]:
    """A reply with the learner's own log-probabilities and no advantage, and what its teacher reads."""
    make = random.Random(4)
    ids = tuple(make.randrange(128) for _ in range(24))
    span = Span(8, 18, (), 0.0, Hint(ids[17:], 1.0))
    own = tuple(full_logps(learner, Sample(ids[:18], (span,))).tolist())
    again = Sample(ids[:8] + ids[17:] + ids[8:18], (Span(15, 25, (), 0.0),))
    return Sample(ids[:18], (replace(span, logps=own),)), again


def test_a_turn_goes_to_where_its_hint_pulls_it_and_no_reward_is_needed(
    tiny_model: Path, learner_config: TrainerConfig
) -> None:
    """Twenty steps of one update, in which the teacher stays what it was."""
    learner = Learner(tiny_model, learner_config.model_copy(update={"loss": TAUGHT, "lr": 2e-3}))
    sample, again = corrected_turn(learner)
    teacher, before = full_logps(learner, again), full_logps(learner, sample)
    metrics = learner.update(cut([sample]) * 20)
    after = full_logps(learner, sample)
    likelier = teacher > before
    assert 2 < int(likelier.sum()) < 8
    assert (after - before)[likelier].mean() > 0.05 and (after - before)[~likelier].mean() < -0.05
    assert (after - teacher).abs().mean() < 0.7 * (before - teacher).abs().mean()
    assert metrics.num_hinted == 20
    assert metrics.hint_gap == pytest.approx(float((before - teacher).mean()), abs=1e-5)


def weights(learner: Learner) -> list[torch.Tensor]:
    return [param.detach().clone() for param in learner.model.parameters()]


def test_hints_do_nothing_and_cost_nothing_where_they_are_not_asked_for(
    tiny_model: Path, learner_config: TrainerConfig
) -> None:
    found = []
    for loss, has_hint in ((LossConfig(), True), (LossConfig(), False), (TAUGHT, False)):
        learner = Learner(tiny_model, learner_config.model_copy(update={"loss": loss}))
        sample, _ = corrected_turn(learner)
        span = replace(sample.spans[0], advantage=0.5, hint=sample.spans[0].hint if has_hint else None)
        passes = []
        learner.model.base_model.register_forward_hook(lambda *_given, passes=passes: passes.append(1))
        metrics = learner.update(cut([replace(sample, spans=(span,))]))
        found.append((weights(learner), len(passes)))
        assert metrics.num_hinted == (0 if loss.hint_weight else None)
    for held, num_passes in found[1:]:
        assert num_passes == found[0][1] and all(map(torch.equal, held, found[0][0]))


def test_without_the_weight_a_corrected_turn_without_advantage_moves_nothing(
    tiny_model: Path, learner_config: TrainerConfig
) -> None:
    learner = Learner(tiny_model, learner_config)
    before = weights(learner)
    learner.update(cut([corrected_turn(learner)[0]]) * 3)
    assert all(map(torch.equal, before, weights(learner)))
