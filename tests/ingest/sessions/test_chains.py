"""Chains: exact token prefixes and nothing else."""

from collections.abc import Callable

from ingest.records.events import Chain, Trace, TurnKind, VersionSpan
from ingest.sessions import chains

MakeTrace = Callable[..., Trace]


def build(traces: list[Trace]) -> tuple[Chain, ...]:
    """The session's chains with all their tokens."""
    return chains.whole(chains.join(traces).chains)


def test_a_prompt_that_begins_with_the_whole_chain_extends_it(make_trace: MakeTrace) -> None:
    first = make_trace(n=0, at=0, prompt=(1, 2), reply=(3, 4))
    second = make_trace(n=1, at=5, prompt=(1, 2, 3, 4, 5), reply=(6,))
    (chain,) = build([first, second])
    assert chain.token_ids == (1, 2, 3, 4, 5, 6)
    assert [(s.trace_id, s.start, s.end) for s in chain.segments] == [(first.trace_id, 2, 4), (second.trace_id, 5, 6)]


def test_a_prompt_that_shares_only_a_proper_prefix_begins_a_new_chain(make_trace: MakeTrace) -> None:
    first = make_trace(n=0, at=0, prompt=(1, 2), reply=(3, 4))
    edited = make_trace(n=1, at=5, prompt=(1, 2, 9), reply=(6,))
    assert [chain.token_ids for chain in build([first, edited])] == [(1, 2, 3, 4), (1, 2, 9, 6)]


def test_a_reply_that_was_retokenised_begins_a_new_chain(make_trace: MakeTrace) -> None:
    first = make_trace(n=0, at=0, prompt=(1, 2), reply=(3, 4))
    other_ids = make_trace(n=1, at=5, prompt=(1, 2, 34, 5), reply=(6,))
    assert len(build([first, other_ids])) == 2


def test_a_regenerated_reply_is_a_chain_and_the_chosen_one_is_extended(make_trace: MakeTrace) -> None:
    first = make_trace(n=0, at=0, prompt=(1,), reply=(3,))
    again = make_trace(n=1, at=5, prompt=(1,), reply=(4,))
    after = make_trace(n=2, at=9, prompt=(1, 3, 5), reply=(6,))
    assert [chain.token_ids for chain in build([first, again, after])] == [(1, 3, 5, 6), (1, 4)]


def test_the_longest_chain_wins(make_trace: MakeTrace) -> None:
    short = make_trace(n=0, at=0, prompt=(1,), reply=(2,))
    long = make_trace(n=1, at=1, prompt=(1,), reply=(2, 3, 4))
    after = make_trace(n=2, at=2, prompt=(1, 2, 3, 4, 5), reply=(6,))
    assert [chain.token_ids for chain in build([short, long, after])] == [(1, 2), (1, 2, 3, 4, 5, 6)]


def test_order_of_arrival_does_not_matter(make_trace: MakeTrace) -> None:
    first = make_trace(n=0, at=0, prompt=(1,), reply=(2,))
    second = make_trace(n=1, at=5, prompt=(1, 2, 3), reply=(4,))
    assert build([second, first]) == build([first, second])


def test_segments_keep_the_traces_own_logprobs_and_spans(make_trace: MakeTrace) -> None:
    spans = (VersionSpan(version=1, start=0, end=1), VersionSpan(version=2, start=1, end=3))
    trace = make_trace(prompt=(1, 2, 3, 4), reply=(5, 6, 7), logprobs=(-0.5, -1.5, -2.5), spans=spans)
    (segment,) = build([trace])[0].segments
    assert (segment.start, segment.end, segment.logprobs, segment.spans) == (4, 7, (-0.5, -1.5, -2.5), spans)


def test_a_trace_without_reply_tokens_gives_no_segment(make_trace: MakeTrace) -> None:
    assert build([make_trace(reply=())]) == ()


def test_a_side_turn_gives_no_segment_and_cannot_be_extended(make_trace: MakeTrace) -> None:
    side = make_trace(n=0, at=0, prompt=(1,), reply=(2,), kind=TurnKind.SIDE)
    main = make_trace(n=1, at=5, prompt=(1, 2, 3), reply=(4,))
    (chain,) = build([side, main])
    assert [segment.trace_id for segment in chain.segments] == [main.trace_id]


def test_a_summary_turn_is_trained(make_trace: MakeTrace) -> None:
    assert len(build([make_trace(kind=TurnKind.SUMMARY)])) == 1
