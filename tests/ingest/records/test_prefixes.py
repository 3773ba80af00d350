"""Cutting a trace by an earlier one, and making it whole again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import RecordError
from ingest.records import codec, prefixes
from ingest.records.events import Trace
from ingest.records.packing import Logprobs, TokenIds
from ingest.records.prefixes import Outline

MakeTrace = Callable[..., Trace]
GOLDEN = (Path(__file__).with_name("golden") / "trace.v1.json").read_bytes()
TOOLS = [{"type": "function", "function": {"name": "read_file", "description": "Read a file of the checkout."}}]


def cut(trace: Trace, parent: Trace) -> Trace:
    outline, elder = Outline.of(trace), Outline.of(parent)
    digest = prefixes.digest(codec.encode(parent)[0])
    return prefixes.cut(trace, outline, elder, digest, elder.num_tokens_in(outline.prompt))


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def test_a_turn_stores_its_suffix_and_says_whose_the_rest_is(make_trace: MakeTrace) -> None:
    parent = make_trace(n=0, prompt=(1, 2, 3), reply=(4, 5), request={"messages": said("a"), "tools": TOOLS})
    messages = said("a", "b", "c")
    trace = make_trace(n=1, prompt=(1, 2, 3, 4, 5, 6), request={"messages": messages, "tools": TOOLS, "n": 1})
    stored = cut(trace, parent)
    assert stored.prefix is not None
    assert (stored.prefix.parent, stored.prefix.num_tokens, stored.prefix.num_messages) == (parent.trace_id, 5, 1)
    assert stored.prompt_token_ids == (6,)
    assert stored.request == {"messages": messages[1:], "n": 1}
    assert prefixes.whole(stored, parent) == trace


def test_a_small_field_is_stored_again(make_trace: MakeTrace) -> None:
    parent, trace = (make_trace(n=n, request={"messages": [], "temperature": 0.5}) for n in range(2))
    assert cut(trace, parent).request == {"messages": [], "temperature": 0.5}


def test_a_prefix_that_ends_inside_the_reply_is_one(make_trace: MakeTrace) -> None:
    parent, trace = make_trace(n=0, prompt=(1, 2), reply=(3, 4, 5)), make_trace(n=1, prompt=(1, 2, 3, 9))
    assert cut(trace, parent).prompt_token_ids == (9,)


@pytest.mark.parametrize("field", ["messages", "input"])
def test_messages_are_found_wherever_a_client_puts_them(make_trace: MakeTrace, field: str) -> None:
    parent, trace = make_trace(n=0, request={field: said("a")}), make_trace(n=1, request={field: said("a", "b")})
    assert cut(trace, parent).request == {field: said("a", "b")[1:]}


@pytest.mark.parametrize("request_body", [{}, {"prompt": "x" * 50}, {"input": "a text"}, {"messages": "no list"}])
def test_a_request_without_a_list_of_messages_is_cut_too(make_trace: MakeTrace, request_body: dict[str, Any]) -> None:
    parent, trace = (make_trace(n=n, request=request_body) for n in range(2))
    assert prefixes.whole(cut(trace, parent), parent) == trace


def test_a_parent_that_has_less_than_was_left_to_it_is_an_error(make_trace: MakeTrace) -> None:
    parent = make_trace(n=0, prompt=(1, 2, 3), reply=(4,), messages=said("a"))
    stored = cut(make_trace(n=1, prompt=(1, 2, 3, 4, 5), messages=said("a", "b")), parent)
    with pytest.raises(RecordError, match=r"takes 4 tokens and 1 messages from trace .*, which has 3 and 1"):
        prefixes.whole(stored, parent.model_copy(update={"prompt_token_ids": TokenIds((1, 2))}))


TOKENS = st.lists(st.integers(0, 3), max_size=8).map(TokenIds)
VALUES = st.one_of(st.text(max_size=40), st.integers(), st.lists(st.text(max_size=20), max_size=3))
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(st.dictionaries(st.sampled_from(["role", "content"]), st.text(max_size=3)), max_size=4),
        "tools": VALUES,
        "metadata": VALUES,
    },
)


@given(TOKENS, TOKENS, TOKENS, REQUESTS, REQUESTS)
def test_whatever_is_cut_is_made_whole_again(
    prompt: TokenIds,
    reply: TokenIds,
    other: TokenIds,
    first: dict[str, Any],
    second: dict[str, Any],
) -> None:
    from_golden = Trace.model_validate_json(GOLDEN)
    parent = from_golden.model_copy(
        update={
            "prompt_token_ids": prompt,
            "token_ids": reply,
            "request": first,
            "logprobs": Logprobs([0.0] * len(reply)),
        }
    )
    trace = from_golden.model_copy(update={"trace_id": "t-2", "prompt_token_ids": other, "request": second})
    stored = cut(trace, parent)
    assert prefixes.whole(stored, parent) == trace
    value, headers = codec.encode(stored)
    assert codec.decode(value, headers, Trace) == stored
