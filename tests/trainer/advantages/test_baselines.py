"""What a turn is expected to earn: shrinkage to parents, forgetting, and how many keys are kept."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.config import BaselineConfig
from trainer.advantages.baselines import COUNT_BEFORE, Baselines, Column, Key, Node

OWN = BaselineConfig()
ACME: Key = ("thumb", "main", "acme")


def column(keys: Sequence[Key], rewards: Sequence[float]) -> Column:
    return Column("thumb", tuple(range(len(keys))), tuple(keys), (1.0,) * len(keys), tuple(rewards))


def expected(baselines: Baselines, key: Key, first: float = 0.0) -> float:
    return baselines.before(column([key], [first]), OWN)[key]


def means(baselines: Baselines) -> dict[Key, tuple[float, float]]:
    return {node.key: (node.mean, node.turns) for node in baselines.nodes}


def test_a_key_is_shrunk_to_its_parent_by_how_many_turns_it_is_worth() -> None:
    """The tenant: (24 x 0.5 + 8 x 0.9) / 32 = 0.6; its task: (8 x 0.2 + 8 x 0.6) / 16 = 0.4."""
    known = Baselines(nodes=(Node(("thumb",), 0.9, 50.0), Node(ACME, 0.5, 24.0), Node((*ACME, "sql"), 0.2, 8.0)))
    assert expected(known, ACME) == pytest.approx(0.6)
    assert expected(known, (*ACME, "sql")) == pytest.approx(0.4)


def test_a_key_that_was_never_seen_expects_what_its_parent_does() -> None:
    known = Baselines(nodes=(Node(("thumb",), 0.9, 50.0), Node(ACME, 0.5, 24.0)))
    assert expected(known, (*ACME, "new", "tools")) == pytest.approx(0.6)
    assert expected(known, ("thumb", "main", "other")) == pytest.approx(0.9)


def test_a_key_that_was_seen_once_says_a_ninth() -> None:
    """Nine turns of 0.5 in one task, then one of 1 in another: (1 + 8 parent) / 9. The part's: 0.96 x 9 and one."""
    first = Baselines(nodes=(Node(("thumb",), 0.5, 9.0), Node((*ACME, "sql"), 0.5, 9.0)))
    moved = first.after([column([(*ACME, "poems")], [1.0])], 0.0, OWN)
    part = (0.96 * 9 * 0.5 + 1.0) / (0.96 * 9 + 1.0)
    tenant = (1.0 + 8.0 * ((1.0 + 8.0 * part) / 9.0)) / 9.0  # kind and tenant were seen once, too
    assert means(moved)[("thumb",)] == pytest.approx((part, 9.64))
    assert expected(moved, (*ACME, "poems")) == pytest.approx((1.0 + 8.0 * tenant) / 9.0)


def test_a_part_that_is_new_begins_at_the_batchs_mean_and_not_at_zero() -> None:
    found = Baselines().before(column([(*ACME, "a"), (*ACME, "b")], [1.0, 0.5]), OWN)
    assert found == pytest.approx({(*ACME, "a"): 0.75, (*ACME, "b"): 0.75})


@pytest.mark.parametrize(
    ("moved", "kept"),
    [
        (0.0, 0.96),  # however still the policy stood
        (0.006, 2**-0.1),  # 0.933
        (0.06, 0.875),  # a half, but for the bound
    ],
)
def test_what_was_known_is_forgotten_by_how_far_the_policy_moved(moved: float, kept: float) -> None:
    """Ten turns of 0.5, then two of 1, of which the second finds that the first moved nothing."""
    known = Baselines(nodes=(Node(("thumb",), 0.5, 10.0, moved),))
    (node,) = known.after([column([("thumb",)] * 2, [1.0, 1.0])], 0.0, OWN).nodes
    known, new = 10 * kept * 0.96, 1 + 0.96
    assert node.turns == pytest.approx(known + new)
    assert node.mean == pytest.approx((known * 0.5 + new) / (known + new))


def test_a_key_is_worth_no_more_turns_than_it_remembers() -> None:
    known = Baselines().after([column([("thumb",)] * 500, [1.0, 0.0] * 250)], 0.0, OWN)
    assert means(known)[("thumb",)] == pytest.approx((0.5, 25.0))


def test_one_turn_at_a_time_is_the_papers_tracker() -> None:
    """alpha <- rho alpha + r, beta <- rho beta + 1 - r."""
    rng, known, alpha, beta = random.Random(0), Baselines(), 0.0, 0.0
    for _ in range(30):
        reward, moved = rng.choice((0.0, 1.0)), rng.uniform(0.0, 0.02)
        rho = min(max(2 ** (-(known.nodes[0].moved if known.nodes else 0.0) / 0.06), 0.875), 0.96)
        alpha, beta = rho * alpha + reward, rho * beta + 1.0 - reward
        known = known.after([column([("thumb",)], [reward])], moved, OWN)
        assert known.nodes[0].mean == pytest.approx(alpha / (alpha + beta))
        assert known.nodes[0].turns == pytest.approx(alpha + beta)


def test_a_key_that_is_not_in_the_batch_keeps_its_baseline_and_grows_old() -> None:
    known = Baselines(nodes=(Node(("thumb",), 0.5, 10.0), Node(("tone",), 0.5, 10.0, 0.01)))
    assert known.after([column([("thumb",)], [1.0])], 0.02, OWN).nodes[1] == Node(("tone",), 0.5, 10.0, 0.01 + 0.02)


KEYS = st.sampled_from([(*ACME, "sql"), (*ACME, "poems"), ("thumb", "summary", "acme"), ("thumb", "main", "other")])
TURNS = st.lists(st.tuples(KEYS, st.floats(0.0, 1.0)), min_size=1, max_size=30)


@settings(max_examples=40)
@given(TURNS, TURNS)
def test_every_baseline_lies_between_its_own_mean_and_its_parents(
    first: list[tuple[Key, float]], second: list[tuple[Key, float]]
) -> None:
    known = Baselines()
    for turns in (first, second):
        known = known.after([column(*zip(*turns, strict=True))], 0.01, OWN)
    for node in known.nodes:
        if len(node.key) > 1:
            parent = expected(known, node.key[:-1])
            low, high = sorted((node.mean, parent))
            assert low - 1e-12 <= expected(known, node.key) <= high + 1e-12


@settings(max_examples=40)
@given(TURNS, st.randoms(use_true_random=False))
def test_the_order_of_turns_in_a_batch_does_not_matter(turns: list[tuple[Key, float]], rng: random.Random) -> None:
    shuffled = rng.sample(turns, len(turns))
    one, other = (Baselines().after([column(*zip(*given, strict=True))], 0.1, OWN) for given in (turns, shuffled))
    assert list(means(one)) == list(means(other))
    for key, found in means(one).items():
        assert means(other)[key] == pytest.approx(found)


@settings(max_examples=40)
@given(TURNS)
def test_a_turn_is_no_part_of_its_own_baseline(turns: list[tuple[Key, float]]) -> None:
    known = Baselines().after([column(*zip(*turns, strict=True))], 0.01, OWN)
    for key, _ in turns:
        assert expected(known, key, first=0.0) == expected(known, key, first=1.0)


def test_those_that_count_least_by_now_are_forgotten_first() -> None:
    own = BaselineConfig(max_keys=2)
    known = Baselines(nodes=(Node(("a",), 0.5, 10.0, 0.6), Node(("b",), 0.5, 3.0), Node(("c",), 0.5, 1.0)))
    assert list(means(known.after([], 0.0, own))) == [("b",), ("c",)], "10 turns half-forgotten ten times count 0.01"


def test_where_keys_count_alike_a_parent_outlives_its_children() -> None:
    kept = Baselines().after([column([ACME], [1.0])], 0.0, BaselineConfig(max_keys=2))
    assert list(means(kept)) == [("thumb",), ("thumb", "main")]


def test_baselines_survive_a_checkpoint() -> None:
    known = Baselines().after([column([ACME, (*ACME, "sql")], [0.1, 0.7])], 0.1 + 0.2, OWN)
    assert Baselines.model_validate_json(known.model_dump_json()) == known


def test_an_older_checkpoints_baselines_are_read_as_worth_eight_turns_and_those_of_kinds_alone_are_not() -> None:
    read = Baselines.model_validate({"main:outcome:a:b": 0.8, "summary:recall:default": 0.4, "main:default": 0.1})
    assert read.nodes == (
        Node(("outcome", "main", "a:b"), 0.8, COUNT_BEFORE),
        Node(("recall", "summary", "default"), 0.4, COUNT_BEFORE),
    )


def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match=r"min_kept must be at most max_kept, got 0.9 and 0.5"):
        BaselineConfig(min_kept=0.9, max_kept=0.5)
