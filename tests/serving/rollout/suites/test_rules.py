"""What a reply must be, rule by rule."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from serving.rollout.suites.replies import Reply, ToolCall, last_number, most_repeated, script_share
from serving.rollout.suites.rules import NAMES, Rule

RULE: TypeAdapter[Any] = TypeAdapter(Rule)
CALL = Reply("", "tool_calls", (ToolCall("weather", '{"city": "Oslo"}'),))
CITY = {"type": "object", "required": ["city"]}


@pytest.mark.parametrize(
    ("rule", "kept", "broken"),
    [
        ({"equals": "Four"}, " four.\n", "four apples"),
        ({"contains": "paris"}, "It is PARIS.", "It is Lyon."),
        ({"contains": ["5", "five"]}, "Five", "six"),
        ({"lacks": ["green", "blue"]}, "red", "a Green one"),
        ({"matches": r"^\d{4}$"}, "2026", "in 2026"),
        ({"number": {"is": 42}}, "17 + 25 = 42", "17 + 25 = 41"),
        ({"number": {"is": 3.14, "within": 0.01}}, "about 3.145", "about 3.2"),
        ({"number": {"is": 1234.5}}, "1,234.5", "none"),
        ({"json_schema": CITY}, '```json\n{"city": "Oslo"}\n```', '{"town": "Oslo"}'),
        ({"json_schema": CITY}, '{"city": 1}', "city: Oslo"),
        ({"words": {"min": 2, "max": 3}}, "one two", "one two three four"),
        ({"words": {"min": 2}}, "one two three four", "one"),
        ({"script": "cyrillic"}, "Привет, 1!", "Hello"),
        ({"script": "latin"}, "Grüße", "你好 a"),
        ({"repeats": {"words": 2, "max": 2}}, "a b a b c", "a b a b a b"),
    ],
)
def test_a_rule_takes_what_keeps_it_and_says_why_not(rule: dict[str, Any], kept: str, broken: str) -> None:
    made = RULE.validate_python(rule)
    assert made.broken_by(Reply(kept)) is None
    assert "must" in made.broken_by(Reply(broken))


def test_how_a_reply_ends_is_a_rule() -> None:
    made = RULE.validate_python({"finish": ["stop"]})
    assert made.broken_by(Reply("x", "stop")) is None
    assert made.broken_by(Reply("x", "length")) == "must finish with stop, got length"


def test_a_call_is_right_by_its_tool_and_its_arguments() -> None:
    made = RULE.validate_python({"calls": {"tool": "weather", "arguments": CITY}})
    assert made.broken_by(CALL) is None
    assert made.broken_by(Reply("It rains.")) == "must call weather, got 'It rains.'"
    for wrong in ('{"town": "Oslo"}', "Oslo"):
        assert "arguments of weather: must" in made.broken_by(Reply("", tool_calls=(ToolCall("weather", wrong),)))


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"contain": "x"}, "must have one key, of equals, contains"),
        ({"contains": "x", "lacks": "y"}, "must have one key"),
        ("Paris", "must have one key"),
        ({"matches": "("}, "must be a regular expression that RE2 takes, got '('"),
        ({"matches": r"(a)\1"}, "must be a regular expression that RE2 takes"),
        ({"json_schema": {"type": "text"}}, "must be a JSON schema"),
        ({"words": {"min": 3, "max": 2}}, "`max` must be `min` or more, got 2 and 3"),
        ({"contains": []}, "at least 1"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(rule: Any, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RULE.validate_python(rule)
    assert told in str(caught.value)


def test_every_rule_has_its_own_name() -> None:
    assert len(set(NAMES)) == len(NAMES) == 11


def test_a_hostile_reply_does_not_hold_a_pattern_up() -> None:
    made = RULE.validate_python({"matches": r"^(a+)+$"})
    assert made.broken_by(Reply("a" * 50_000 + "b"))


def test_what_replies_are_looked_into_by() -> None:
    assert (last_number("-3 or 1,000"), last_number("none")) == (1000.0, None)
    assert (script_share("aж", "latin"), script_share("12", "latin")) == (0.5, 0.0)
    assert (most_repeated("x y x y x", 2), most_repeated("x", 2)) == (2, 0)
