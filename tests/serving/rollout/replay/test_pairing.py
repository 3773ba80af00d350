"""Answers and their rewards, in pairs."""

import pytest
from replayed import reward

from infra.config import GateConfig, ReplayConfig
from ingest.records.events import Arm
from serving.rollout.evidence import REWARD, Verdict, paired
from serving.rollout.replay.pairing import Book, least_pairs, outcomes, unscored

C, S = Arm.CANDIDATE, Arm.STABLE
CONFIG = ReplayConfig(margin=0.05)
GATE = GateConfig.model_validate(
    {
        "guardrails": [
            {"name": "completed", "margin": 0.02},
            {"name": "scored", "margin": 0.02},
            {"name": "keep", "margin": 0.02, "missing": 0.5, "required": False},
        ]
    }
)


@pytest.fixture
def book() -> Book:
    made = Book({C: 1, S: 0}, ("p",))
    made.note("p", "c", "s")
    return made


def test_a_pair_is_both_arms_answers_to_one_prompt(book: Book) -> None:
    book.take(reward("p", C, "c", 0.25))
    assert book.pairs() == {}
    book.take(reward("p", S, "s", 1.0))
    held = outcomes(book.pairs(), GATE, CONFIG)
    assert (len(held[REWARD]), held[REWARD].mean) == (1, -0.75)


def test_a_reward_that_comes_before_its_answer_was_noted_counts() -> None:
    book = Book({C: 1, S: 0}, ("p",))
    book.take(reward("p", C, "c", 0.0))
    book.take(reward("p", S, "s", 1.0))
    assert book.pairs() == {}
    book.note("p", "c", "s")
    assert len(book.pairs()) == 1


def test_what_was_asked_later_waits_for_what_was_asked_before_it() -> None:
    book = Book({C: 1, S: 0}, ("slow", "left out", "fast", "lost"))
    for name in ("slow", "fast", "lost"):
        book.note(name, f"c {name}", f"s {name}")
    book.note("left out", None, "s left out")
    for name in ("fast", "slow"):
        assert book.pairs() == {}
        for arm in (C, S):
            book.take(reward(name, arm, f"{arm.value[0]} {name}", 0.5))
    assert list(book.pairs()) == ["slow", "fast"]
    assert (book.num_lacking, list(book.pairs(is_over=True))) == (1, ["slow", "fast"])


def test_what_another_process_or_attempt_asked_is_no_answer_of_this_stage(book: Book) -> None:
    book.take(reward("p", C, "another", 0.0))
    book.take(reward("p", S, "s", 1.0))
    assert book.pairs() == {}


def test_an_answer_of_other_weights_than_its_arms_counts_for_nothing(book: Book) -> None:
    book.take(reward("p", C, "c", 0.0, version=0))
    book.take(reward("p", S, "s", 1.0))
    assert book.pairs() == {}


def test_duplicates_change_nothing_and_the_newest_revision_counts(book: Book) -> None:
    for value, revision in ((0.25, 1), (0.5, 3), (0.5, 3), (0.75, 2)):
        book.take(reward("p", C, "c", value, revision=revision))
    book.take(reward("p", S, "s", 1.0))
    assert outcomes(book.pairs(), GATE, CONFIG)[REWARD].mean == -0.5


def test_silence_is_no_sign_that_both_are_alike(book: Book) -> None:
    book.take(reward("p", C, "c", None))
    book.take(reward("p", S, "s", None))
    held = outcomes(book.pairs(), GATE, CONFIG)
    assert len(held[REWARD]) == 0
    assert paired(held, 0.05, 0.05, is_over=True).verdict is Verdict.EXPIRE
    assert unscored(book.pairs().values()) == "thumb: no feedback"


def test_guardrails_are_compared_where_both_have_them_and_one_that_is_missing_passes_nothing(book: Book) -> None:
    book.take(reward("p", C, "c", 0.5, guardrails={"completed": 0.0, "keep": 1.0}))
    book.take(reward("p", S, "s", 0.5, guardrails={"completed": 1.0}))
    held = outcomes(book.pairs(), GATE, CONFIG)
    assert set(held) == {REWARD, "completed"}  # `keep` is not reported by both, `scored` says nothing without users
    assert held["completed"].mean == -1.0
    assert set(outcomes({}, GATE, CONFIG)) == {REWARD, "completed"}


def test_how_long_an_idle_engine_took_is_not_held_against_a_busy_one(book: Book) -> None:
    slow = GateConfig.model_validate({"guardrails": [{"name": "latency", "margin": 0.05}]})
    book.take(reward("p", C, "c", 0.5, guardrails={"latency": 0.1}))
    book.take(reward("p", S, "s", 0.5, guardrails={"latency": 0.9}))
    assert set(outcomes(book.pairs(), slow, CONFIG)) == {REWARD}
    assert set(outcomes(book.pairs(), slow, ReplayConfig(left_out=()))) == {REWARD, "latency"}


def test_a_rate_that_is_none_is_no_difference(book: Book) -> None:
    book.take(reward("p", C, "c", 0.5, guardrails={"completed": float("nan")}))
    book.take(reward("p", S, "s", 0.5, guardrails={"completed": 1.0}))
    assert len(outcomes(book.pairs(), GATE, CONFIG)["completed"]) == 0


@pytest.mark.parametrize("num_outcomes", [1, 3])
def test_the_fewest_prompts_that_can_show_harm_do_and_one_less_does_not(num_outcomes: int) -> None:
    config = ReplayConfig(alpha=0.05, margin=0.05)
    least = least_pairs(num_outcomes, config)
    rails = {"guardrails": [{"name": f"g{n}", "margin": 0.02} for n in range(num_outcomes - 1)]}
    gate = GateConfig.model_validate(rails)
    for num, told in ((least, Verdict.REJECT), (least - 1, Verdict.HOLD)):
        lost = {str(n): (reward(str(n), C, f"c{n}", 0.0), reward(str(n), S, f"s{n}", 1.0)) for n in range(num)}
        held = outcomes(lost, gate, config)
        assert len(held) == num_outcomes
        assert paired(held, config.alpha, config.alpha, is_over=False).verdict is told
