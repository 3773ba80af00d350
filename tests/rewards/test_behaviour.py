"""What guardrails see of a turn, in [0, 1], more being better."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.config import GateConfig
from infra.config import load as load_config
from infra.errors import ConfigError
from ingest.records.events import ChatMessage, CloseReason, Feedback, ToolCall, Trajectory, Turn, TurnKind
from rewards import spec
from rewards.behaviour import Brevity, Latency, Questions, Refusals, Tools
from rewards.evaluate import evaluate
from rewards.scorers import Scored, Scorer, Unscored

OFFER = json.dumps([{"type": "function", "function": {"name": "read"}}])


def turn(n: int = 0, **fields: Any) -> Turn:
    values: dict[str, Any] = {
        "trace_id": f"t{n}", "kind": TurnKind.MAIN, "context": "", "reply": "an answer", "followup": None,
        "finish_reason": "stop", "status": 200, "num_tokens": 5, "versions": (1,), "at": float(n),
    }  # fmt: skip
    return Turn.model_validate(values | fields)


def trajectory(*turns: Turn, feedback: tuple[Feedback, ...] = ()) -> Trajectory:
    return Trajectory(
        trajectory_id="j", session_id="s", tenant="t", assignment=None, held_out=False, closed=CloseReason.INACTIVE,
        opened_at=0.0, closed_at=1.0, turns=turns or (turn(),), chains=(), feedback=feedback,
    )  # fmt: skip


def value(scorer: Scorer, *turns: Turn) -> float:
    outcome = scorer.score(trajectory(*turns), turns[0])
    assert isinstance(outcome, Scored)
    return outcome.value


def test_latency_is_a_half_after_its_half_time_and_more_for_faster_replies() -> None:
    assert value(Latency(half_s=4.0), turn(took_s=4.0)) == 0.5
    assert value(Latency(half_s=4.0), turn(took_s=0.0)) == 1.0
    assert value(Latency(half_s=4.0), turn(took_s=12.0)) == 0.25


def test_a_latency_that_was_not_recorded_is_none_and_not_a_good_one() -> None:
    assert isinstance(Latency().score(trajectory(), turn()), Unscored)


def test_brevity_falls_with_the_tokens_of_the_reply() -> None:
    assert value(Brevity(half_tokens=100), turn(num_tokens=100)) == 0.5
    assert value(Brevity(half_tokens=100), turn(num_tokens=300)) == 0.25


def call(name: str = "read", arguments: str = '{"path": "a"}', call_id: str = "c") -> ToolCall:
    return ToolCall(name=name, arguments=arguments, call_id=call_id)


def result(text: str, call_id: str = "c") -> Turn:
    message = ChatMessage(role="tool", text=text, call_id=call_id)
    return turn(1, parent="t0", messages=(message,))


@pytest.mark.parametrize(
    ("made", "text", "expected"),
    [
        (call(), "x = 1", 1.0),
        (call(), "no errors found", 1.0),
        (call(), '{"error": null, "rows": 3}', 1.0),
        (call(), "Error: no such file", 0.0),
        (call(), "Traceback (most recent call last):", 0.0),
        (call(), "FileNotFoundError: a", 0.0),
        (call(), '{"error": "no such file"}', 0.0),
        (call(name="delete"), "done", 0.0),
        (call(arguments="{"), "done", 0.0),
        (call(arguments="[1]"), "done", 0.0),
        (call(arguments=""), "done", 1.0),
    ],
)
def test_a_tool_call_fails_by_its_name_its_arguments_or_its_result(made: ToolCall, text: str, expected: float) -> None:
    assert value(Tools(), turn(tools=OFFER, tool_calls=(made,)), result(text)) == expected


def test_of_several_tool_calls_the_share_that_did_not_fail_counts_and_none_is_no_failure() -> None:
    calls = (call(), call(call_id="d"), call(call_id="e"), call(call_id="f"))
    assert value(Tools(), turn(tool_calls=calls), result("error: no", "d")) == 0.75
    assert value(Tools(), turn()) == 1.0


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("I'm sorry, but I can't help with that.", 0.0),
        ("I cannot assist with this request.", 0.0),
        ("As an AI language model, I have no opinion.", 0.0),
        ("Unfortunately, I am unable to provide that.", 0.0),
        ("Sorry for the confusion. The answer is 4.", 1.0),
        ("You can't divide by zero.", 1.0),
        ("I can't reproduce it here, but here is the fix.", 1.0),
    ],
)
def test_a_refusal_is_told_by_how_the_reply_begins(reply: str, expected: float) -> None:
    assert value(Refusals(), turn(reply=reply)) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("Which file do you mean?", 0.0), ("**Shall I go on?**\n", 0.0), ("Why? Because it rained.", 1.0), ("Done.", 1.0)],
)
def test_a_question_is_a_reply_that_ends_by_asking(reply: str, expected: float) -> None:
    assert value(Questions(), turn(reply=reply)) == expected


def configured(folder: Path, text: str, gate: str = "{}") -> spec.Scoring:
    (folder / "spec.yaml").write_text(text)
    config = f"model: {{path: .}}\nrewards: {{spec: {folder}/spec.yaml}}\nserving: {{rollout: {{gate: {gate}}}}}\n"
    (folder / "onstream.yaml").write_text(config)
    return spec.of(load_config(folder / "onstream.yaml", {}))


THUMB = "name: x\ncomponents: [{name: thumb, scorer: feedback, params: {names: [thumb]}}]\n"


def test_the_default_gate_asks_for_what_any_spec_measures(tmp_path: Path) -> None:
    """Nothing that it requires is missing of a plain session, whatever the spec says of guardrails."""
    scoring = configured(tmp_path, THUMB)
    rates = evaluate(scoring, trajectory(turn(took_s=10.0)), at=0.0).guardrails
    asked = {rail.name for rail in GateConfig().guardrails if rail.required}
    assert asked - {"scored"} == set(rates)
    kept = Feedback(feedback_id="f", session_id="s", tenant="t", name="kept", value=1.0, at=1.0)
    reported = evaluate(scoring, trajectory(turn(took_s=10.0), feedback=(kept,)), at=0.0)
    assert reported.guardrails["kept"] == 1.0


def test_a_guardrail_of_a_specs_own_takes_the_shipped_ones_place(tmp_path: Path) -> None:
    own = THUMB + "guardrails: [{name: questions, scorer: reply, params: {max_words: 3}}]\n"
    rates = evaluate(configured(tmp_path, own), trajectory(turn(reply="one two three four")), at=0.0).guardrails
    assert rates["questions"] == 0.0


def test_what_is_rewarded_is_no_guardrail_and_the_gate_that_asks_for_it_is_told(tmp_path: Path) -> None:
    text = "name: x\ncomponents: [{name: short, scorer: brevity, params: {half_tokens: 500}}]\n"
    with pytest.raises(ConfigError, match="'brevity' must be a guardrail of the reward spec"):
        configured(tmp_path, text)
    gate: Any = json.dumps({"guardrails": [{"name": "completed", "margin": 0.1}, {"name": "scored", "margin": 0.1}]})
    assert configured(tmp_path, text, gate).spec.components[0].name == "short"
