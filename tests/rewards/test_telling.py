"""What telemetry hears of rewards: reasons from a closed set, never a scorer's own words."""

import ast
from pathlib import Path

import pytest
from told import telling as on

from infra import telemetry
from infra.telemetry import metrics, names
from ingest.records.events import Component, Reward, Source
from rewards import telling
from rewards.telling import OTHER, cause

REWARDS = Path(__file__).parents[2] / "rewards"


def made(*components: Component) -> Reward:
    return Reward(
        reward_id="r", trajectory_id="j", session_id="s", tenant="t", assignment=None, held_out=False, opened_at=0.0,
        trace_ids=("a",), versions=(0,), spec="x", components=components, turns=(), value=0.5, has_signal=True,
        guardrails={}, source=Source(partition=0, offset=0), at=0.0,
    )  # fmt: skip


def scored(name: str, value: float | None, unscored: str | None = None) -> Component:
    return Component(name=name, scorer="x", trace_id="a", value=value, unscored=unscored)


def shipped_reasons() -> list[str]:
    """What the shipped code gives as its reasons, as far as it is spelled out there."""
    found = []
    for path in REWARDS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="Unscored"), args=[ast.Constant(value=str(told))]):
                    found.append(told)
                case ast.Call(
                    func=ast.Name(id="Unscored"), args=[ast.JoinedStr(values=[ast.Constant(value=told), *_])]
                ):
                    found.append(str(told))
    return found


def test_every_reason_that_the_shipped_scorers_give_is_told() -> None:
    reasons = shipped_reasons()
    assert len(reasons) > 10
    assert [reason for reason in reasons if cause(reason) == OTHER] == []


@pytest.mark.parametrize("reason", ["my mother's name is Anna", "Anna: said so", "", "crashedly: x"])
def test_a_scorers_own_words_are_not_told(reason: str) -> None:
    assert cause(reason) == OTHER


def test_what_stands_behind_a_reasons_colon_is_not_told() -> None:
    assert cause("crashed: ValueError: what a user typed") == "crashed"
    assert cause("no answer within 30 s: its batch is at work") == "no answer in time"


def test_unscored_components_are_counted_by_reason_beside_all_that_were_asked() -> None:
    with on() as told:
        telling.count(made(scored("thumb", 1.0), scored("thumb", None, "no feedback"), scored("tone", None, "Anna")))
        assert told.value(metrics.SCORES, component="thumb") == 2
        assert told.value(metrics.UNSCORED, component="thumb", reason="no feedback") == 1
        assert told.value(metrics.UNSCORED, component="tone", reason=OTHER) == 1


def test_each_score_is_an_evaluation_in_the_span_that_made_it_and_what_is_unscored_is_none() -> None:
    reward = made(scored("thumb", 0.25), scored("tone", None, "no feedback"), *(scored("x", 1.0) for _ in range(200)))
    with on() as told:
        with telemetry.span(names.SCORE, of="trajectories") as span:
            telling.show(span, reward)
        (first, *rest) = told.span("process trajectories").events
    assert first.name == "gen_ai.evaluation.result"
    assert dict(first.attributes or {}) == {
        "gen_ai.evaluation.name": "thumb",
        "gen_ai.evaluation.score.value": 0.25,
        "gen_ai.response.id": "a",
    }
    assert len(rest) == names.MAX_EVENTS - 1
    assert "tone" not in {(event.attributes or {})["gen_ai.evaluation.name"] for event in rest}
