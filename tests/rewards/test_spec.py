"""The reward spec: read, refused, and evaluated against numbers worked by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.errors import ConfigError
from ingest.events import Feedback, Trajectory, Turn, TurnKind
from rewards import spec
from rewards.scorers import Outcome, Scored
from rewards.spec import RewardSpec, Scoring, evaluate

MakeTurn = Callable[..., Turn]
MakeTrajectory = Callable[..., Trajectory]
MakeThumb = Callable[..., Feedback]

THUMB = {"name": "thumb", "scorer": "feedback", "weight": 3.0}
SHORT = {"name": "short", "scorer": "reply", "weight": 1.0, "params": {"max_words": 5}}


def scoring(*components: dict[str, Any], **fields: Any) -> Scoring:
    return spec.build(RewardSpec.model_validate({"name": "test", "components": components} | fields))


class Crashing:
    name = "crashing"
    version = "1"

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        raise KeyError("missing")


class Careless:
    name = "careless"
    version = "1"

    def score(self, trajectory: Trajectory, turn: Turn) -> Any:
        return 0.7


class Excited(Careless):
    def score(self, trajectory: Trajectory, turn: Turn) -> Any:
        return Scored(1.5)


def with_scorer(scorer: Any) -> Scoring:
    """A spec whose only component and only guardrail are this scorer."""
    parsed = RewardSpec.model_validate(
        {
            "name": "test",
            "components": [{"name": "own", "scorer": "x"}],
            "guardrails": [{"name": "guard", "scorer": "y"}],
        }
    )
    return Scoring(parsed, (scorer,), (scorer,), "test@0")


def test_a_turns_reward_is_the_weighted_mean_of_what_scored_it(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    trajectory = make_trajectory(make_turn(0), make_turn(1), feedback=(make_thumb(0.0, "t0"),))
    reward = evaluate(scoring(THUMB, SHORT), trajectory, at=7.0)
    assert [turn.value for turn in reward.turns] == [(3 * 0.5 + 1 * 1.0) / 4, 1.0]
    assert reward.value == (0.625 + 1.0) / 2
    assert (reward.has_signal, reward.at) == (True, 7.0)


def test_silence_has_a_price_for_the_gate_and_none_for_the_trainer(make_trajectory: MakeTrajectory) -> None:
    reward = evaluate(scoring(THUMB, silence=0.3), make_trajectory(), at=0.0)
    assert (reward.value, reward.has_signal) == (0.3, False)
    assert [turn.value for turn in reward.turns] == [None]
    assert [component.unscored for component in reward.components] == ["no feedback"]


def test_a_spec_may_train_silent_turns_without_calling_them_signal(make_trajectory: MakeTrajectory) -> None:
    reward = evaluate(scoring(THUMB, silence=0.3, silent_turns=0.4), make_trajectory(), at=0.0)
    assert [turn.value for turn in reward.turns] == [0.4]
    assert (reward.value, reward.has_signal) == (0.3, False)


def test_side_turns_take_no_part(make_turn: MakeTurn, make_trajectory: MakeTrajectory) -> None:
    trajectory = make_trajectory(make_turn(0), make_turn(1, kind=TurnKind.SIDE, reply="one two three four five six"))
    reward = evaluate(scoring(SHORT), trajectory, at=0.0)
    assert ([turn.trace_id for turn in reward.turns], reward.value) == (["t0"], 1.0)


def test_a_summary_is_rewarded_but_does_not_move_the_session(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    turns = (make_turn(0), make_turn(1, kind=TurnKind.SUMMARY))
    feedback = (make_thumb(1.0, "t0"), make_thumb(-1.0, "t1"))
    reward = evaluate(scoring(THUMB), make_trajectory(*turns, feedback=feedback), at=0.0)
    assert ([turn.value for turn in reward.turns], reward.value) == ([1.0, 0.0], 1.0)


@pytest.mark.parametrize("scorer", [Crashing(), Careless(), Excited()], ids=["raises", "returns a float", "above one"])
def test_a_crash_is_unscored_and_never_zero(
    scorer: Any, make_trajectory: MakeTrajectory, caplog: pytest.LogCaptureFixture
) -> None:
    reward = evaluate(with_scorer(scorer), make_trajectory(), at=0.0)
    (component,) = reward.components
    assert component.value is None
    assert component.unscored is not None
    assert component.unscored.startswith("crashed: ")
    assert (reward.value, reward.has_signal, reward.guardrails) == (0.5, False, {})
    assert scorer.name in caplog.text


def test_guardrails_are_rates_and_never_part_of_the_reward(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    guardrail = {"name": "completed", "scorer": "reply", "params": {"finish_reasons": ["stop"]}}
    turns = (make_turn(0), make_turn(1, finish_reason="abort"), make_turn(2), make_turn(3))
    trajectory = make_trajectory(*turns, feedback=(make_thumb(1.0),))
    guarded = evaluate(scoring(THUMB, guardrails=[guardrail]), trajectory, at=0.0)
    assert guarded.guardrails == {"completed": 0.75}
    assert guarded.value == evaluate(scoring(THUMB), trajectory, at=0.0).value == 1.0
    assert {component.name for component in guarded.components} == {"thumb"}


def test_a_guardrail_that_nothing_could_score_is_missing(make_trajectory: MakeTrajectory) -> None:
    guardrail = {"name": "liked", "scorer": "followup"}
    assert evaluate(scoring(THUMB, guardrails=[guardrail]), make_trajectory(), at=0.0).guardrails == {}


@pytest.mark.parametrize(
    "guardrail",
    [
        {"scorer": "reply", "params": {"max_words": 5}},
        {"scorer": "rewards.scorers:ReplyRule", "params": {"max_words": 5}},
        {"scorer": "reply", "params": {"max_words": 5, "min_words": None}},
    ],
    ids=["the same", "by another name", "defaults written out"],
)
def test_a_guardrail_that_is_in_the_reward_is_refused(guardrail: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"'guard'.*'short'"):
        scoring(THUMB, SHORT, guardrails=[{"name": "guard"} | guardrail])


def test_the_id_changes_with_anything_that_scores(make_trajectory: MakeTrajectory) -> None:
    ids = {scoring(THUMB).id, scoring(SHORT).id, scoring(THUMB, silence=0.4).id, scoring({**THUMB, "weight": 2.0}).id}
    assert len(ids) == 4
    assert scoring(THUMB).id == scoring(THUMB).id
    rewards = {evaluate(scoring(THUMB), make_trajectory(), at=at).reward_id for at in (0.0, 1.0)}
    rewards |= {evaluate(scoring(SHORT), make_trajectory(), at=0.0).reward_id}
    assert len(rewards) == 2
    name, _, digest = scoring(THUMB).id.partition("@")
    assert (name, len(digest)) == ("test", 12)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("components: [", "not readable as YAML"),
        ("name: x\ncomponents: []", "components"),
        ("name: x\ncomponents: [{name: a, scorer: feedback}]\nsilense: 0.5", "silense"),
        ("name: x\ncomponents: [{name: a, scorer: feedback, weight: 0}]", "weight"),
        ("name: x\ncomponents: [{name: a, scorer: feedback}, {name: a, scorer: followup}]", "must differ"),
        ("name: x\ncomponents: [{name: a, scorer: nobody}]", "nobody"),
        ("just text", "reward spec"),
    ],
)
def test_a_spec_that_cannot_be_used_is_refused_by_file_and_name(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=told) as refused:
        spec.load(str(file))
    assert str(file) in str(refused.value)


def test_a_missing_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        spec.load(str(tmp_path / "none.yaml"))


def test_the_shipped_default_scores_thumbs_and_next_words(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    default = spec.load("")
    turns = (make_turn(0), make_turn(1, followup="thanks"), make_turn(2, reply="", finish_reason="abort"))
    reward = evaluate(default, make_trajectory(*turns, feedback=(make_thumb(-1.0, "t0"),)), at=0.0)
    assert [turn.value for turn in reward.turns] == [0.0, 1.0, None]
    assert reward.guardrails == pytest.approx({"completed": 2 / 3, "substance": 2 / 3})
