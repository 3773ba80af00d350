"""What a session keeps of a trace."""

from collections.abc import Callable

from ingest.log.protocol import Message
from ingest.records import codec, prefixes
from ingest.records.events import Trace
from ingest.records.prefixes import Outline
from ingest.sessions.held import Held


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
