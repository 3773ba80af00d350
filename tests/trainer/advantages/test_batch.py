"""From rewards in the inbox to what trains: chains made whole, parts to columns, advantages on the engine's tokens."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import sqrt

import pytest
from agent_sessions import AGENTIC, Session, close, play
from inboxes import items_of
from packed import seen_from

from infra.config import TrainerConfig, TrajectoryWeight
from ingest.records.events import ChatMessage, LinkKind, Reward, TurnKind, TurnReward, about
from trainer.advantages.baselines import Baselines, Key, Node
from trainer.advantages.batch import Batch, make_batch
from trainer.inbox import Item

RewardOf = Callable[..., Reward]
CONFIG = TrainerConfig(microbatch_tokens=4096)


def batch_of(items: Sequence[Item], known: Mapping[Key, float] | None = None, config: TrainerConfig = CONFIG) -> Batch:
    """`known` so well that nothing shrinks it."""
    nodes = tuple(Node(key, mean, 1e12) for key, mean in (known or {}).items())
    return make_batch(items, Baselines(nodes=nodes), config, step=0)


def trained(batch: Batch) -> Iterator[tuple[list[int], list[int], list[float], list[float]]]:
    """For each run of trained tokens: the tokens before it, its own, their log-probabilities and advantages."""
    for microbatch in (micro for mini in batch.minibatches for micro in mini):
        for turn in range(microbatch.num_turns):
            own_N = microbatch.turns_N == turn
            before, positions = seen_from(microbatch, int(microbatch.sources_N[own_N][0]))
            assert positions == list(range(len(before)))
            arrays = (microbatch.targets_N, microbatch.logps_N, microbatch.advantages_N)
            yield (before, *(array[own_N].tolist() for array in arrays))


def branched_and_compacted() -> Session:
    session = Session(random.Random(3))
    session.begin()
    session.speak()
    session.regenerate()
    session.use_tool()
    session.compact(is_declared=True)
    session.speak()
    session.regenerate()
    session.side()
    session.compact(is_declared=False)
    session.speak()
    return session


def scored(session: Session, reward_of: RewardOf) -> Reward:
    """The session as ingest closes it, each of its turns with a reward of its own."""
    (trajectory,) = close([session])
    turns = tuple(TurnReward(trace_id=turn.trace_id, value=n / 100) for n, turn in enumerate(trajectory.turns))
    made = {"trajectory": trajectory, "turns": turns, **about(trajectory)}
    return reward_of(session.name, [1.0]).model_copy(update=made)


@pytest.mark.parametrize("session", [branched_and_compacted(), *(play(seed, AGENTIC, 12) for seed in range(8))])
def test_what_trains_of_a_session_of_leaning_chains_is_what_the_engine_sampled_after_what_it_was_given(
    session: Session, reward_of: RewardOf
) -> None:
    batch = batch_of(items_of(scored(session, reward_of)))
    sampled = sorted(
        (list(trace.prompt_token_ids), list(trace.token_ids), list(trace.logprobs))
        for trace in session.traces
        if trace.kind is not TurnKind.SIDE
    )
    assert sorted((before, own, logps) for before, own, logps, _ in trained(batch)) == sampled


def test_the_inbox_holds_what_chains_share_once(reward_of: RewardOf) -> None:
    session = branched_and_compacted()
    (item,) = items_of(scored(session, reward_of))
    links = {chain.link.kind for chain in item.chains if chain.link}
    assert {LinkKind.BRANCH, LinkKind.COMPACTION} <= links and any(chain.shared for chain in item.chains)


def test_a_summary_with_credit_is_measured_against_summaries_part_by_part(reward_of: RewardOf) -> None:
    """Two sessions of a main turn and a summary. All share their session's outcome, recall is the summary's own."""
    rewards = [
        reward_of(
            name,
            [outcome, (outcome + 0.5 * recall) / 1.5],
            parts=[{"outcome": (1.0, outcome)}, {"outcome": (1.0, outcome), "recall": (0.5, recall)}],
            turn_changes={1: {"kind": TurnKind.SUMMARY}},
            token=token,
        )
        for name, token, outcome, recall in (("s1", 10, 0.9, 0.2), ("s2", 20, 0.7, 0.6))
    ]
    known = {
        ("outcome", "main", "default"): 0.8,
        ("outcome", "summary", "default"): 0.6,
        ("recall", "summary", "default"): 0.4,
    }
    batch = batch_of(items_of(*rewards), known)
    # outcome: 0.1, 0.3, -0.1, 0.1 is whitened to 0, sqrt 2, -sqrt 2, 0 ; recall: -0.2, 0.2 to -1, 1 with weight 0.5
    sums = {10: 0.0, 11: sqrt(2) - 0.5, 20: -sqrt(2), 21: 0.5}
    std = sqrt(sum(x * x for x in sums.values()) / 4)
    found = {own[0]: values[0] for _, own, _, values in trained(batch)}
    assert found == pytest.approx({token: x / std for token, x in sums.items()}, abs=1e-4)


def test_kinds_tenants_and_parts_have_baselines_of_their_own(reward_of: RewardOf) -> None:
    both = {"outcome": (1.0, 0.5), "tone": (0.0, 0.5)}
    rewards = [
        reward_of("s1", [0.5, 0.5], parts=[both, both], turn_changes={1: {"kind": TurnKind.SUMMARY}}),
        reward_of("s2", [0.5], parts=[{"outcome": (1.0, 0.5)}], tenant="acme"),
        reward_of("s3", [0.5]),
    ]
    columns = batch_of(items_of(*rewards)).columns
    assert {key for column in columns for key in column.keys} == {
        ("outcome", "main", "default", "", ""),
        ("tone", "main", "default", "", ""),
        ("outcome", "summary", "default", "", ""),
        ("tone", "summary", "default", "", ""),
        ("outcome", "main", "acme", "", ""),
        ("value", "main", "default", "", ""),
    }


def test_tasks_and_tools_have_baselines_of_their_own(reward_of: RewardOf) -> None:
    def asked(system: str, tools: str) -> dict[int, dict[str, object]]:
        return {0: {"messages": (ChatMessage(role="system", text=system),), "tools": tools}}

    search, both = '[{"type": "function", "function": {"name": "search"}}]', '[{"name": "search"}, {"name": "run"}]'
    given = [
        ("Write SQL. Today is 2026-11-26.", search),
        ("Write SQL. Today is 2026-12-01.", search),
        ("Write SQL.", ""),
    ]
    given += [("Write poems.", search), ("Write poems.", both)]
    rewards = [reward_of(f"s{n}", [0.5], turn_changes=asked(*one)) for n, one in enumerate(given)]
    (column,) = batch_of(items_of(*rewards)).columns
    assert column.keys[0] == column.keys[1] and len(set(column.keys)) == 4
    assert column.keys[3][:-1] == column.keys[4][:-1] != column.keys[0][:-1]


def test_the_turns_of_a_trajectory_count_one_together_however_many_they_are(reward_of: RewardOf) -> None:
    """Turns of four tokens and of two, and one of two alone: 4 / 6 and 2 / 6 as seen, 1 / 6 and 1 / 2 as trained."""
    long = {"segment_changes": {0: {"start": 1, "logprobs": (-1.0,) * 4}}}
    items = items_of(reward_of("s1", [0.9, 0.9], **long), reward_of("s2", [0.1]))
    expected = {
        TrajectoryWeight.NONE: ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
        TrajectoryWeight.TURNS: ([0.5, 0.5, 1.0], [0.5, 0.5, 1.0]),
        TrajectoryWeight.TOKENS: ([4 / 6, 2 / 6, 1.0], [2 / 6, 2 / 6, 1.0]),
    }
    for weight, (counts, weights) in expected.items():
        batch = batch_of(items, config=CONFIG.model_copy(update={"trajectory_weight": weight, "max_user_share": 1.0}))
        assert batch.fairness.counts == pytest.approx(counts)
        assert batch.fairness.weights == pytest.approx(weights)
        if weight is not TrajectoryWeight.NONE:
            assert sum(batch.fairness.counts[:2]) == pytest.approx(batch.fairness.counts[2])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weight", [TrajectoryWeight.TURNS, TrajectoryWeight.TOKENS])
def test_any_trajectories_count_alike_together_and_turning_one_into_many_turns_moves_no_other(
    reward_of: RewardOf, seed: int, weight: TrajectoryWeight
) -> None:
    rng = random.Random(seed)
    config = CONFIG.model_copy(
        update={"trajectory_weight": weight, "near_duplicate_from": 1.0, "max_user_share": 1.0, "max_tenant_share": 1.0}
    )
    values = [rng.random() for _ in range(8)]
    found = []
    for _ in range(2):
        lengths = [rng.randint(1, 9) for _ in values]
        rewards = [
            reward_of(f"s{n}", [value] * num, token=100 * (n + 1))
            for n, (value, num) in enumerate(zip(values, lengths, strict=True))
        ]
        batch = batch_of(items_of(*rewards), config=config)
        numbers = [turn.trace_id.rsplit("-", 1)[0] for turn in batch.turns]
        counts: dict[str, float] = dict.fromkeys(numbers, 0.0)
        pulls: dict[str, float] = dict.fromkeys(numbers, 0.0)
        for turn, name, count in zip(batch.turns, numbers, batch.fairness.counts, strict=True):
            counts[name] += count
            pulls[name] += batch.advantages[turn.trace_id]
        assert list(counts.values()) == pytest.approx([max(counts.values())] * len(values))
        found.append([pull / max(map(abs, pulls.values())) for pull in pulls.values()])
    # turns here are of two tokens each, so a trajectory pulls as its outcome is worth, however many turns it took
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_a_long_trajectory_says_no_more_than_a_short_one_of_what_is_normal(reward_of: RewardOf) -> None:
    """Eight turns of 1 and one of 0: the part's mean is a half, so both are as far from it."""
    batch = batch_of(items_of(reward_of("s1", [1.0] * 8), reward_of("s2", [0.0])))
    values = list(batch.advantages.values())
    assert values == pytest.approx([1 / 8] * 8 + [-1.0], abs=1e-4)
    (top, *_) = Baselines().after(batch.columns, 0.0, CONFIG.baselines, batch.fairness.counts).nodes
    assert top.mean == pytest.approx(0.5)


def test_the_mean_of_a_part_is_over_the_turns_that_have_it(reward_of: RewardOf) -> None:
    parts = [{"thumb": (1.0, 1.0)}, {"thumb": (1.0, 0.0), "tone": (1.0, 0.8)}]
    batch = batch_of(items_of(reward_of("s", [1.0, 0.4], parts=parts)))
    assert batch.mean_reward == pytest.approx(0.7)
    assert batch.mean_parts == pytest.approx({"reward.thumb": 0.5, "reward.tone": 0.8})
