"""Groups of replays and single turns in one batch."""

from collections.abc import Callable, Sequence
from statistics import fmean

import pytest
from inboxes import items_of

from infra.config import TrainerConfig
from ingest.records.events import Assignment, ChatMessage, Group, Reward
from trainer.advantages.baselines import Baselines, Node
from trainer.advantages.batch import Batch, make_batch
from trainer.advantages.groups import Shape

RewardOf = Callable[..., Reward]
CONFIG = TrainerConfig(near_duplicate_from=1.0)
PART = "value"  # what a turn's reward is called where its record has no parts


@pytest.fixture
def batch_of(reward_of: RewardOf) -> Callable[..., Batch]:
    """A batch of single turns with these rewards, and of groups, each with a propensity; all were asked `asked`."""

    def make(
        singles: Sequence[float],
        groups: Sequence[Sequence[float]],
        propensity: float = 0.1,
        asked: str = "",
        known: float | None = None,
    ) -> Batch:
        """`known` is what single turns earned before."""
        said = {"messages": (ChatMessage(role="user", text=asked),)} if asked else {}
        turns = {"turn_changes": dict.fromkeys(range(8), said)}
        rewards = [reward_of(f"s{n}", [value], token=100 + n, **turns) for n, value in enumerate(singles)]
        for n, values in enumerate(groups):
            group = Group(size=len(values), propensity=propensity, anchor={}, spec="x@1")
            made = reward_of(f"g{n}", list(values), token=200 + n, **turns)
            rewards.append(made.model_copy(update={"assignment": Assignment(replay_of="k-0", group=group)}))
        nodes = () if known is None else (Node((PART,), known, 1e12),)
        return make_batch(items_of(*rewards), Baselines(nodes=nodes), CONFIG, step=0)

    return make


def values_of(batch: Batch, first: int, num: int = 1) -> list[float]:
    """Advantages of turns by their numbers, each over its weight."""
    turns = list(zip(batch.turns, batch.fairness.weights, strict=True))[first : first + num]
    return [batch.advantages[turn.trace_id] / weight for turn, weight in turns]


def test_each_kind_is_scaled_by_itself_and_neither_shifts_the_other(batch_of: Callable[..., Batch]) -> None:
    singles = [0.0, 0.2, 1.0, 0.9]
    alone, mixed = batch_of(singles, []), batch_of(singles, [[1.0, 0.0], [0.3, 0.3]])
    assert values_of(mixed, 0, 4) == pytest.approx(values_of(alone, 0, 4))
    assert fmean(values_of(mixed, 0, 4)) == pytest.approx(0.0, abs=1e-9)
    assert values_of(mixed, 4, 4) == pytest.approx([1.0, -1.0, 0.0, 0.0], abs=1e-4)
    assert mixed.groups == {Shape.COMPARED: 1, Shape.ALIKE: 1, Shape.ALONE: 0}


def test_a_group_counts_as_one_prompt_whatever_its_size(batch_of: Callable[..., Batch]) -> None:
    batch = batch_of([0.0, 1.0], [[1.0, 0.0, 0.0, 1.0]])
    assert sum(batch.fairness.counts[2:]) == pytest.approx(batch.fairness.counts[0])


def test_one_answer_that_was_left_alone_has_the_keyed_baseline_and_is_neither_raw_nor_zero(
    batch_of: Callable[..., Batch],
) -> None:
    batch = batch_of([0.0, 0.2, 1.0], [[0.7]])
    assert batch.groups == {Shape.COMPARED: 0, Shape.ALIKE: 0, Shape.ALONE: 1}
    (found,) = values_of(batch, 3)
    assert found == pytest.approx(values_of(batch_of([0.0, 0.2, 1.0, 0.7], []), 3)[0])
    assert abs(found) > 1e-3 and found != pytest.approx(0.7)


@pytest.mark.parametrize("reward", [1.0, 0.0])
def test_the_one_single_turn_beside_groups_is_neither_raw_nor_zero(
    batch_of: Callable[..., Batch], reward: float
) -> None:
    batch = batch_of([reward], [[1.0, 0.0], [0.3, 0.3]], known=0.8)
    # over sqrt(.8 * .2), as z-scores are; what groups are worth is theirs
    assert values_of(batch, 0) == pytest.approx([(reward - 0.8) / 0.4])
    assert values_of(batch, 1, 4) == pytest.approx([1.0, -1.0, 0.0, 0.0], abs=1e-4)


def test_one_answer_left_alone_and_no_other_single_turn_has_the_keyed_baseline_still(
    batch_of: Callable[..., Batch],
) -> None:
    batch = batch_of([], [[1.0, 0.0], [0.7]], known=0.5)
    assert values_of(batch, 2) == pytest.approx([(0.7 - 0.5) / 0.5])


def test_the_turns_of_a_lone_session_beside_groups_share_its_outcome_and_are_not_zero(reward_of: RewardOf) -> None:
    session = reward_of("s0", [1.0, 1.0, 1.0], token=100)
    group = Group(size=2, propensity=0.1, anchor={}, spec="x@1")
    made = reward_of("g0", [1.0, 0.0], token=200)
    made = made.model_copy(update={"assignment": Assignment(replay_of="k-0", group=group)})
    batch = make_batch(items_of(session, made), Baselines(nodes=(Node((PART,), 0.5, 1e12),)), CONFIG, step=0)
    assert values_of(batch, 0, 3) == pytest.approx([1.0] * 3)


def test_groups_move_no_baseline_and_are_no_part_of_what_users_had(batch_of: Callable[..., Batch]) -> None:
    alone, mixed = batch_of([0.5, 0.1], []), batch_of([0.5, 0.1], [[1.0, 0.0]])
    assert mixed.columns == alone.columns and mixed.mean_reward == alone.mean_reward == pytest.approx(0.3)


def test_a_batch_of_groups_alone_trains(batch_of: Callable[..., Batch]) -> None:
    batch = batch_of([], [[1.0, 0.0], [0.0, 1.0]])
    assert values_of(batch, 0, 4) == pytest.approx([1.0, -1.0, -1.0, 1.0], abs=1e-4)
    assert batch.columns == () and batch.mean_reward == 0.5


def test_replays_are_no_near_duplicates_and_are_not_remembered_as_asked(batch_of: Callable[..., Batch]) -> None:
    fairness = batch_of([0.5, 0.6], [[1.0, 0.0]], asked="What shall I pack for three days in the mountains?").fairness
    assert [bool(one.sketch) for one in fairness.asked] == [True, True, False, False]
    assert fairness.num_alike == (2, 2, 1, 1)
