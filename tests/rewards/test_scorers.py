"""Built-in scorers, and how a user's own is found."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import ConfigError
from ingest.records.events import Feedback, Trajectory, Turn, TurnKind
from rewards import plugins
from rewards.scorers import FeedbackScorer, FollowupRule, ReplyRule, Scored, Unscored

MakeTurn = Callable[..., Turn]
MakeTrajectory = Callable[..., Trajectory]
MakeThumb = Callable[..., Feedback]

OWN = """
from dataclasses import dataclass
from rewards.scorers import Scored

@dataclass
class Length:
    most: int
    name = "length"
    version = "7"

    def score(self, trajectory, turn):
        return Scored(min(1.0, len(turn.reply) / self.most))

class Nothing:
    pass
"""


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_a_score_outside_zero_to_one_cannot_be_made(value: float) -> None:
    with pytest.raises(ValueError, match="lies in"):
        Scored(value)


def test_feedback_about_a_turn_is_averaged_and_mapped(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    given = (make_thumb(1.0, "t0"), make_thumb(0.0, "t0"), make_thumb(-1.0, "t1"))
    trajectory = make_trajectory(make_turn(0), make_turn(1), make_turn(2), feedback=given)
    outcomes = [FeedbackScorer().score(trajectory, turn) for turn in trajectory.turns]
    assert outcomes == [Scored(0.75), Scored(0.0), Unscored("no feedback")]


def test_feedback_about_a_session_counts_for_every_main_turn(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    turns = (make_turn(0), make_turn(1), make_turn(2, kind=TurnKind.SUMMARY))
    trajectory = make_trajectory(*turns, feedback=(make_thumb(-1.0),))
    assert [FeedbackScorer().score(trajectory, turn) for turn in turns] == [
        Scored(0.0),
        Scored(0.0),
        Unscored("no feedback"),
    ]
    assert FeedbackScorer(session_level=False).score(trajectory, turns[0]) == Unscored("no feedback")


def test_only_named_feedback_counts(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    trajectory = make_trajectory(feedback=(make_thumb(1.0, "t0", "stars"), make_thumb(-1.0, "t0", "thumb")))
    assert FeedbackScorer(names=("thumb",)).score(trajectory, make_turn()) == Scored(0.0)


@pytest.mark.parametrize(
    ("followup", "outcome"),
    [
        ("That's wrong, the answer is 4", Scored(0.0)),
        ("no, I meant Paris in Texas", Scored(0.0)),
        ("thanks, but that is not right", Scored(0.0)),
        ("Perfect!", Scored(1.0)),
        ("thank you", Scored(1.0)),
        ("and what about Rome?", Unscored("follow-up says neither")),
        ("I know nothing about it", Unscored("follow-up says neither")),
        (None, Unscored("no follow-up")),
    ],
)
def test_the_users_next_words_tell(
    followup: str | None, outcome: Scored | Unscored, make_turn: MakeTurn, make_trajectory: MakeTrajectory
) -> None:
    turn = make_turn(followup=followup)
    assert FollowupRule().score(make_trajectory(turn), turn) == outcome


def test_patterns_are_ours_to_choose(make_turn: MakeTurn, make_trajectory: MakeTrajectory) -> None:
    turn = make_turn(followup="FALSCH")
    assert FollowupRule(displeased=("falsch",), pleased=()).score(make_trajectory(turn), turn) == Scored(0.0)
    strict = FollowupRule(displeased=("falsch",), pleased=(), ignore_case=False)
    assert isinstance(strict.score(make_trajectory(turn), turn), Unscored)


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (ReplyRule(min_words=5), 1.0),
        (ReplyRule(min_words=6), 0.0),
        (ReplyRule(max_words=5), 1.0),
        (ReplyRule(max_words=4), 0.0),
        (ReplyRule(must_match=("answer", "five")), 1.0),
        (ReplyRule(must_match=("answer", "six")), 0.0),
        (ReplyRule(must_not_match=("sorry",)), 1.0),
        (ReplyRule(must_not_match=("sorry", "answer")), 0.0),
        (ReplyRule(finish_reasons=("stop",)), 1.0),
        (ReplyRule(finish_reasons=("length",)), 0.0),
        (ReplyRule(min_words=1, finish_reasons=("length",)), 0.0),
    ],
)
def test_a_reply_keeps_the_rule_or_not(
    rule: ReplyRule, value: float, make_turn: MakeTurn, make_trajectory: MakeTrajectory
) -> None:
    assert rule.score(make_trajectory(), make_turn()) == Scored(value)


@pytest.mark.parametrize(
    ("reference", "params", "told"),
    [
        ("reply", {}, "needs a condition"),
        ("reply", {"must_match": ["("]}, "no regular expression"),
        ("reply", {"min_words": "many"}, "min_words"),
        ("reply", {"finish_reasons": "stop"}, "finish_reasons"),
        ("followup", {"pleasd": []}, "pleasd"),
        ("nobody", {}, "known names are brevity, faithfulness, feedback, followup, latency, length, questions"),
        ("no.such.module:Class", {}, "No module named"),
        ("rewards.scorers:Nothing", {}, "Nothing"),
        ("rewards.scorers:STRICT", {}, "must be a class"),
        ("nowhere.py:Class", {}, "no such file"),
    ],
)
def test_what_is_no_scorer_is_refused_by_name(reference: str, params: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        plugins.make(reference, params)
    assert reference in str(refused.value)


def test_a_users_own_scorer_is_found_in_a_file(
    tmp_path: Path, make_turn: MakeTurn, make_trajectory: MakeTrajectory
) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    scorer = plugins.make(f"{file}:Length", {"most": 46})
    assert scorer.score(make_trajectory(), make_turn()) == Scored(0.5)
    with pytest.raises(ConfigError, match="must have `name`"):
        plugins.make(f"{file}:Nothing", {})
    with pytest.raises(ConfigError, match="most"):
        plugins.make(f"{file}:Length", {})


def test_a_scorer_is_found_in_a_module() -> None:
    assert plugins.make("rewards.scorers:ReplyRule", {"min_words": 1}) == ReplyRule(min_words=1)
