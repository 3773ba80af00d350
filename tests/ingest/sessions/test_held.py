"""What a session keeps of a trace."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.errors import RecordError
from ingest.log.protocol import Message
from ingest.records import codec, prefixes
from ingest.records.codec import SCHEMA_HEADER
from ingest.records.events import Trace
from ingest.records.prefixes import Outline
from ingest.sessions import held as module
from ingest.sessions.held import Held

GOLDEN = Path(__file__).parents[1] / "records" / "golden"
NEWEST = json.loads((GOLDEN / f"trace.v{Trace.VERSION}.json").read_bytes())
GONE = object()
ODD = (GONE, None, True, 0, 1, -1, 1.0, 1.5, 2**70, "", "1", "x", "~", "x" * 257, [], [1], [{}], {}, {"x": 1}, {"": 0})
PREFIX = ("parent", "digest", "num_tokens", "num_messages", "same")


def stored(value: bytes, version: int = Trace.VERSION) -> Message:
    return Message("traces", 3, 7, "k", value, {SCHEMA_HEADER: f"trace/{version}"})


def fields(of: Held | Trace) -> dict[str, Any]:
    """What a trace has, with the prefix as its own fields."""
    found = {name: getattr(of, name) for name in Trace.model_fields}
    prefix = found["prefix"]
    return found | {"prefix": prefix and {name: getattr(prefix, name) for name in PREFIX}}


def require_read_alike(value: bytes, version: int = Trace.VERSION) -> bool:
    """What one reader takes, the other takes, as the same. Whether they did."""
    message = stored(value, version)
    try:
        trace = codec.decode(message.value, message.headers, Trace)
    except RecordError as exc:
        with pytest.raises(RecordError) as told:
            Held.read(message)
        assert str(told.value) == str(exc)
        return False
    read, of = Held.read(message), Held.of(trace, message)
    assert repr(fields(read)) == repr(fields(of)) == repr(fields(trace))  # NaN is equal to nothing, and 1 to True
    names = ("partition", "offset", "digest", "num_tokens", "num_messages")
    assert [getattr(read, name) for name in names] == [getattr(of, name) for name in names]
    return True


def places(of: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of everything that a JSON value holds."""
    found = of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ()
    for key, value in found:
        yield (*at, key)
        yield from places(value, (*at, key))


def changed(at: tuple[Any, ...], value: Any) -> bytes:
    """The newest trace with something else, or nothing, at a place."""
    made = json.loads(json.dumps(NEWEST))
    holder = made
    for key in at[:-1]:
        holder = holder[key]
    if value is GONE:
        del holder[at[-1]]
    else:
        holder[at[-1]] = value
    return json.dumps(made).encode()


def held(trace: Trace) -> Held:
    value, headers = codec.encode(trace)
    return Held.of(codec.decode(value, headers, Trace), Message("traces", 0, 0, "k", value, headers))


def test_a_held_trace_that_is_made_whole_is_what_is_held_of_a_whole_one(make_trace: Callable[..., Trace]) -> None:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    parent = make_trace(n=0, prompt=(1, 2), reply=(3,), request={"messages": said[:1]})
    trace = make_trace(n=1, prompt=(1, 2, 3, 4), reply=(5,), request={"messages": said})
    outline, elder = Outline.of(trace), Outline.of(parent)
    stored = prefixes.cut(trace, outline, elder, held(parent).digest, 3)
    made, whole = prefixes.whole(held(stored), held(parent)), held(trace)
    assert (made.num_tokens, made.num_messages) == (whole.num_tokens, whole.num_messages) == (5, 2)
    assert (made.prefix, made.request, made.prompt_token_ids) == (None, whole.request, whole.prompt_token_ids)
    assert (held(stored).num_tokens, held(stored).num_messages) == (5, 2)


def test_spans_that_are_equal_are_held_once(make_trace: Callable[..., Trace]) -> None:
    one, same, other = (held(make_trace(n=n, reply=(0,) * num)) for n, num in enumerate((7, 7, 8)))
    assert one.spans is same.spans
    assert other.spans != one.spans


@pytest.mark.parametrize("version", range(1, Trace.VERSION + 1))
def test_a_trace_of_any_version_is_read_as_the_model_reads_it(version: int) -> None:
    assert require_read_alike((GOLDEN / f"trace.v{version}.json").read_bytes(), version)


def test_a_trace_as_it_is_written_today_is_read_without_the_model() -> None:
    assert module._decoder.decode((GOLDEN / f"trace.v{Trace.VERSION}.json").read_bytes())
    assert set(Trace.model_fields) < set(Held.__struct_fields__)


@pytest.mark.parametrize("at", [("new",), *places(NEWEST)], ids=lambda at: ".".join(map(str, at)))
def test_something_else_at_any_place_is_read_or_refused_as_by_the_model(at: tuple[Any, ...]) -> None:
    taken = [require_read_alike(changed(at, value)) for value in ODD if (at, value) != (("new",), GONE)]
    assert "request" in at or not all(taken)


@pytest.mark.parametrize("name", sorted(set(Held.__struct_fields__) - set(Trace.model_fields)))
def test_what_is_put_in_later_cannot_be_written(name: str) -> None:
    assert not any(require_read_alike(changed((name,), value)) for value in ODD if value is not GONE)


@pytest.mark.parametrize("depth", [10, 140, 160, 190, 198, 199, 200, 201, 202, 300, 3000])
@pytest.mark.parametrize("opened", ["[", '{"a":'])
def test_nesting_is_read_as_deep_as_the_model_reads_it(opened: str, depth: int) -> None:
    nested = opened * depth + "1" + ("]" if opened == "[" else "}") * depth
    value = json.dumps(NEWEST | {"request": {"deep": "HERE"}}).replace('"HERE"', nested).encode()
    assert require_read_alike(value) is (depth < 199)


@pytest.mark.parametrize(
    "text",
    ["NaN", "-Infinity", "1e400", "-0", "1E5", "01", "1.", "0.1e-400", r'"\ud800"', r'"\ud83d\ude00"', '"\x01"', "tru"],
)
@pytest.mark.parametrize("name", ["started_at", "request", "status", "reply_text"])
def test_json_of_any_kind_is_read_as_the_model_reads_it(name: str, text: str) -> None:
    given = f'{{"a": {text}}}' if name == "request" else text
    require_read_alike(json.dumps(NEWEST | {name: "HERE"}).replace('"HERE"', given).encode())


@pytest.mark.parametrize(
    "value", [b"", b"null", b"[]", b"{}", b"\xff", b"\xef\xbb\xbf{}", json.dumps(NEWEST).encode() + b"}"]
)
def test_what_is_no_trace_at_all_is_refused_in_the_words_of_the_model(value: bytes) -> None:
    assert not require_read_alike(value)


def test_a_field_that_stands_twice_is_read_as_the_model_reads_it() -> None:
    text = json.dumps(NEWEST)
    assert require_read_alike((text[:-1] + ', "status": 500, "request": {"a": 1, "a": 2}}').encode())


def test_what_is_alike_in_two_traces_is_held_once() -> None:
    one, other = (Held.read(stored(changed(("assignment", "group"), None))) for _ in range(2))
    assert one.assignment is other.assignment
    assert one.sampling is other.sampling
    assert one.model is other.model
