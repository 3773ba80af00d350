from collections.abc import Callable, Iterable

import numpy as np
import pytest

from ingest.records.events import Reward
from trainer.batching import Microbatch, Minibatch, Sample, Span, minibatches, sample_of


def sample(length: int, *spans: tuple[int, int], token: int = 1) -> Sample:
    return Sample((token,) * length, tuple(Span(a, b, (-0.5,) * (b - a), 1.0) for a, b in spans))


def microbatches(found: Iterable[Minibatch]) -> list[Microbatch]:
    return [microbatch for minibatch in found for microbatch in minibatch]


def test_a_chain_is_one_sample_with_an_advantage_per_segment(reward_of: Callable[..., Reward]) -> None:
    reward = reward_of("s", [1.0, 0.0, 1.0])
    (chain,) = reward.trajectory.chains
    first, _, third = (turn.trace_id for turn in reward.turns)
    made = sample_of(chain, {first: 0.5, third: -0.5})
    assert made is not None
    assert [(s.start, s.end, s.advantage) for s in made.spans] == [(3, 5, 0.5), (13, 15, -0.5)]


def test_context_and_refused_segments_are_masked_but_stay(reward_of: Callable[..., Reward]) -> None:
    reward = reward_of("s", [1.0, 0.0, 1.0], token=50)
    (chain,) = reward.trajectory.chains
    made = sample_of(chain, {reward.turns[0].trace_id: 0.5, reward.turns[2].trace_id: -0.5})
    assert made is not None
    ((microbatch,),) = minibatches([made], 8, 2048, seed=0)
    assert microbatch.token_ids_BT[0].tolist() == [1, 1, 1, 50, 50, 1, 1, 1, 51, 51, 1, 1, 1, 52, 52]
    assert np.flatnonzero(microbatch.mask_BT[0]).tolist() == [3, 4, 13, 14]
    assert microbatch.advantages_BT[0][microbatch.mask_BT[0]].tolist() == [0.5, 0.5, -0.5, -0.5]
    assert microbatch.logps_BT[0][microbatch.mask_BT[0]].tolist() == [-1.0, -2.0, -1.0, -2.0]


def test_what_follows_the_last_trained_token_is_cut(reward_of: Callable[..., Reward]) -> None:
    reward = reward_of("s", [1.0, 0.0, 1.0])
    made = sample_of(reward.trajectory.chains[0], {reward.turns[0].trace_id: 1.0})
    assert made is not None and len(made.token_ids) == 5


def test_a_chain_in_which_nothing_trains_gives_no_sample(reward_of: Callable[..., Reward]) -> None:
    assert sample_of(reward_of("s", [1.0]).trajectory.chains[0], {"another": 1.0}) is None


def test_padded_microbatches_keep_to_the_bound() -> None:
    samples = [sample(length, (1, 3)) for length in (10, 30, 3, 28, 4, 5, 29)]
    found = microbatches(minibatches(samples, 100, 60, seed=0))
    assert all(microbatch.token_ids_BT.size <= 60 for microbatch in found)
    assert sum(microbatch.num_trained for microbatch in found) == 14


def test_a_sample_above_the_bound_is_a_microbatch_of_its_own() -> None:
    found = microbatches(minibatches([sample(100, (1, 3)), sample(5, (1, 3)), sample(5, (1, 3))], 100, 16, seed=0))
    assert sorted(microbatch.token_ids_BT.shape for microbatch in found) == [(1, 100), (2, 5)]


@pytest.mark.parametrize(("turns", "expected"), [(128, 2), (130, 2), (64, 1), (10, 1), (256, 4)])
def test_minibatches_hold_about_as_many_turns_as_asked(turns: int, expected: int) -> None:
    found = minibatches([sample(5, (1, 3)) for _ in range(turns)], 64, 10_000, seed=0)
    sizes = [sum(microbatch.num_trained for microbatch in part) // 2 for part in found]
    assert len(sizes) == expected and sum(sizes) == turns and max(sizes) - min(sizes) <= 1


def test_the_order_depends_on_the_seed_alone() -> None:
    samples = [sample(5, (1, 3), token=n) for n in range(20)]

    def tokens(seed: int) -> list[list[int]]:
        return [m.token_ids_BT[:, 0].tolist() for m in microbatches(minibatches(samples, 4, 20, seed))]

    assert tokens(1) == tokens(1) and tokens(1) != tokens(2)
