from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed import seen_from

from infra.config import Packing
from ingest.records.events import Reward
from trainer.learner.batching import Microbatch, Minibatch, Sample, Span, minibatches, sample_of


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
    assert microbatch.sources_N.tolist() == [2, 3, 12, 13] and microbatch.targets_N.tolist() == [50, 50, 52, 52]
    assert microbatch.advantages_N.tolist() == [0.5, 0.5, -0.5, -0.5]
    assert microbatch.logps_N.tolist() == [-1.0, -2.0, -1.0, -2.0]
    assert microbatch.turns_N.tolist() == [0, 0, 1, 1] and microbatch.num_turns == 2 and microbatch.is_causal


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


@pytest.mark.parametrize(("packing", "rest"), [(Packing.ROWS, (2, 5)), (Packing.SHARED, (1, 10))])
def test_a_sample_above_the_bound_is_a_microbatch_of_its_own(packing: Packing, rest: tuple[int, int]) -> None:
    samples = [sample(100, (1, 3)), *(sample(5, (1, 3), token=n) for n in (2, 3))]
    found = microbatches(minibatches(samples, 100, 16, 0, packing))
    assert sorted(microbatch.token_ids_BT.shape for microbatch in found) == sorted([(1, 100), rest])


@pytest.mark.parametrize(
    ("packing", "shapes"),
    [
        (Packing.ROWS, [(2, 160), (4, 160)]),
        (Packing.PACKED, [(1, 320), (1, 640)]),
        (Packing.SHARED, [(1, 460)]),
    ],
)
def test_a_prompt_that_samples_share_is_laid_out_once(packing: Packing, shapes: list[tuple[int, int]]) -> None:
    """Six samples: a prompt of 100 tokens, and 60 of their own each."""
    samples = [Sample((1,) * 100 + (n,) * 60, (Span(100, 160, (-0.5,) * 60, 1.0),)) for n in range(2, 8)]
    found = microbatches(minibatches(samples, 100, 700, 0, packing))
    assert sorted(microbatch.token_ids_BT.shape for microbatch in found) == shapes


def test_a_group_stays_in_one_minibatch_however_it_was_mixed() -> None:
    """Eight prompts, asked eight times each, in minibatches of 16 turns."""
    samples = [Sample((n % 8 + 1,) * 5 + (n + 20,), (Span(5, 6, (-0.5,), 1.0),)) for n in range(64)]
    for minibatch in minibatches(samples, 16, 4096, seed=3):
        (microbatch,) = minibatch
        groups = [int(target - 20) % 8 for target in microbatch.targets_N]
        assert sorted(groups.count(group) for group in set(groups)) == [8, 8]


@settings(max_examples=200)
@given(st.lists(st.lists(st.integers(1, 3), min_size=3, max_size=9), min_size=1, max_size=12), st.sampled_from(Packing))
def test_each_trained_token_sees_its_own_sample_and_nothing_else(sequences: list[list[int]], packing: Packing) -> None:
    """By the mask's definition, over layouts of every kind: who is seen, in order, is the sample up to there."""
    samples = [Sample(tuple(ids), (Span(1, 2, (-0.5,), 1.0), Span(len(ids) - 1, len(ids), (-0.7,), n + 2.0)))
               for n, ids in enumerate(sequences)]  # fmt: skip
    found = []
    for part in microbatches(minibatches(samples, 5, 24, 1, packing)):
        for source, target, advantage in zip(part.sources_N, part.targets_N, part.advantages_N, strict=True):
            seen, positions = seen_from(part, int(source))
            assert positions == list(range(len(seen)))
            found.append(((*seen, int(target)), float(advantage)))
    firsts = [(s.token_ids[:2], 1.0) for s in samples]
    assert sorted(found) == sorted([*firsts, *((s.token_ids, n + 2.0) for n, s in enumerate(samples))])


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
