"""Turns: the message before, and the user's next words."""

from collections.abc import Callable
from typing import Any

import pytest

from ingest.records.events import Trace, Turn, TurnKind
from ingest.sessions import chains, turns
from ingest.sessions.messages import messages_of

MakeTrace = Callable[..., Trace]


def build(traces: list[Trace]) -> tuple[Turn, ...]:
    return turns.build(chains.join(traces).readings, {})


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    ("request_body", "context"),
    [
        ({"messages": [user("a"), assistant("b"), user("c")]}, "c"),
        ({"messages": [user([{"type": "text", "text": "a"}, {"type": "image_url"}])]}, "a"),
        ({"messages": [assistant(None)]}, ""),
        ({"prompt": "once upon"}, "once upon"),
        ({"prompt": ["a", "b"]}, "a\nb"),
        ({"prompt": [1, 2, 3]}, ""),
        ({"input": "a question"}, "a question"),
        ({"input": [user("a")]}, "a"),
        ({"messages": "nonsense"}, ""),
        ({}, ""),
    ],
)
def test_the_context_is_the_last_message_or_the_prompt(request_body: dict[str, Any], context: str) -> None:
    read = messages_of(request_body)
    assert (read[-1].text if read else "") == context


def test_a_turn_is_followed_by_the_next_words_of_its_user(make_trace: MakeTrace) -> None:
    first = make_trace(n=0, at=0, messages=[user("hi")], reply_text="hello")
    second = make_trace(n=1, at=5, messages=[user("hi"), assistant("hello"), user("thanks")])
    assert [turn.followup for turn in build([second, first])] == ["thanks", None]


def test_another_conversation_is_not_a_followup(make_trace: MakeTrace) -> None:
    first = make_trace(n=0, at=0, messages=[user("hi")])
    edited = make_trace(n=1, at=5, messages=[user("hi there"), assistant("hello"), user("thanks")])
    assert [turn.followup for turn in build([first, edited])] == [None, None]


def test_the_followup_belongs_to_the_reply_it_quotes(make_trace: MakeTrace) -> None:
    first = make_trace(n=0, at=0, messages=[user("hi")], reply_text="hello")
    again = make_trace(n=1, at=1, messages=[user("hi")], reply_text="good day")
    after = make_trace(n=2, at=5, messages=[user("hi"), assistant("hello"), user("nice")])
    assert [turn.followup for turn in build([first, again, after])] == ["nice", None, None]


def test_a_rewritten_reply_still_has_its_followup(make_trace: MakeTrace) -> None:
    first = make_trace(n=0, at=0, messages=[user("hi")], reply_text="<think>hm</think>hello")
    after = make_trace(n=1, at=5, messages=[user("hi"), assistant("hello"), user("nice")])
    assert build([first, after])[0].followup == "nice"


def test_a_tool_result_is_not_the_users_word(make_trace: MakeTrace) -> None:
    first = make_trace(n=0, at=0, messages=[user("hi")], reply_text="")
    tool = {"role": "tool", "content": "42"}
    after = make_trace(n=1, at=5, messages=[user("hi"), assistant(None), tool])
    assert build([first, after])[0].followup is None


def test_a_side_turn_follows_nothing(make_trace: MakeTrace) -> None:
    first = make_trace(n=0, at=0, messages=[user("hi")], reply_text="hello")
    side = make_trace(n=1, at=5, messages=[user("hi"), assistant("hello"), user("a title?")], kind=TurnKind.SIDE)
    assert [turn.followup for turn in build([first, side])] == [None, None]


def test_a_turn_tells_its_length_and_its_versions(make_trace: MakeTrace) -> None:
    (turn,) = build([make_trace(reply=(3, 4, 5))])
    assert (turn.num_tokens, turn.versions, turn.at) == (3, (1,), 1.0)
