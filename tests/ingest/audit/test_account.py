"""The account, heap by heap: the same as of everything at once, it adds up, and its lists end."""

from collections.abc import Iterable
from functools import reduce
from operator import add

from hypothesis import given
from hypothesis import strategies as st

from ingest.audit import heaps, named
from ingest.audit.account import Account, Limits, account
from ingest.audit.books import Books
from ingest.audit.facts import (
    BackFact,
    ClosedFact,
    Fact,
    FateFact,
    FeedbackFact,
    JoinedFact,
    LetterFact,
    RewardedFact,
    TraceFact,
    UnreadableFact,
    of_row,
    row,
)
from ingest.audit.named import Named
from ingest.audit.sources import SOURCES
from ingest.log.letters import Failure
from ingest.records.events import FateKind

LIMITS = Limits(inactivity_s=60.0, horizon_s=300.0, retention_s=1000.0, grace_s=10.0)
KEYS = [f"{number:016x}" for number in range(5)]
NUM_HEAPS = 3

times = st.integers(0, 1500).map(float)
backs = st.none() | times
keys, numbers = st.sampled_from(KEYS), st.integers(0, 3)


def place(topic: str, key: str, number: int) -> str:
    """A place of a message with that key: a message has one."""
    return f"{topic}/0@{number * len(KEYS) + KEYS.index(key)}"


def traces_of(key: str, some: Iterable[int]) -> list[str]:
    return [f"{key}-{number}" for number in sorted(some)]


def trace(key: str, number: int, where: int, at: float, back_at: float | None, is_erased: bool) -> Fact:
    return TraceFact(key, f"{key}-{number}", at, place("traces", key, where), back_at, is_erased)


def given_feedback(key: str, number: int, where: int, at: float, back_at: float | None, is_erased: bool) -> Fact:
    return FeedbackFact(key, f"feedback-{number}", at, place("feedback", key, where), back_at, is_erased)


def letter(key: str, source: str, where: int, failure: Failure) -> Fact:
    return LetterFact(key, source, place(SOURCES[source].topic.name, key, where), failure.value)


topics, some = st.sampled_from(["traces", "feedback"]), st.sets(numbers, min_size=1)
any_fact = st.one_of(
    st.builds(trace, keys, numbers, numbers, times, backs, st.booleans()),
    st.builds(given_feedback, keys, numbers, numbers, times, backs, st.booleans()),
    st.builds(
        lambda key, topic, n, erased: UnreadableFact(key, topic, place(topic, key, n), erased),
        keys,
        topics,
        numbers,
        st.booleans(),
    ),
    st.builds(lambda key, topic, n: BackFact(key, place(topic, key, n)), keys, topics, numbers),
    st.builds(
        lambda key, of, at, erased: ClosedFact(key, traces_of(key, of), at, erased), keys, some, times, st.booleans()
    ),
    st.builds(lambda key, n, is_there: JoinedFact(key, f"feedback-{n}", is_there), keys, numbers, st.booleans()),
    st.builds(lambda key, of, at: RewardedFact(key, traces_of(key, of), at), keys, some, times),
    st.builds(
        lambda key, of, kind, version, at: FateFact(key, traces_of(key, of), kind, version, "because", at),
        keys,
        some,
        st.sampled_from(FateKind),
        st.sampled_from([None, 3, 4]),
        times,
    ),
    st.builds(letter, keys, st.sampled_from(sorted(SOURCES)), numbers, st.sampled_from(Failure)),
)
many_facts = st.lists(any_fact, max_size=60)


def in_one_pass(facts: Iterable[Fact], now: float) -> Account:
    books = Books()
    for fact in facts:
        books.add(fact)
    return account(books, LIMITS, now)


@given(many_facts, st.integers(0, 60), times)
def test_heaps_add_up_to_the_account_of_everything_at_once(facts: list[Fact], cut: int, now: float) -> None:
    with heaps.scratch() as folder:
        for name, share in (("0-0", facts[:cut]), ("1-0", facts[cut:])):
            writer = heaps.Writer(folder, NUM_HEAPS, name)
            for fact in share:
                writer.add(fact)
            writer.flush()
        found = [in_one_pass(heaps.read(folder, heap), now) for heap in range(NUM_HEAPS)]
    assert reduce(add, found) == in_one_pass(facts, now)


@given(many_facts, times)
def test_every_trace_and_every_feedback_has_one_outcome(facts: list[Fact], now: float) -> None:
    found = in_one_pass(facts, now)
    ended = found.by_fate.total() + found.in_flight.total()
    assert found.num_traces == ended + found.unexplained.num + found.conflicts.num
    told = found.feedback
    assert told.num_feedback == told.by_outcome.total() + told.in_flight.total() + told.unexplained.num


@given(any_fact)
def test_a_fact_comes_back_from_disk_as_it_was(fact: Fact) -> None:
    found = of_row(list(row(fact)))
    assert (type(found), found) == (type(fact), fact)


def test_a_session_lies_in_one_heap_and_sessions_in_all_of_them() -> None:
    found = {heaps.of_key(f"{number:016x}", NUM_HEAPS) for number in range(100)}
    assert found == set(range(NUM_HEAPS))
    assert heaps.how_many(0) == heaps.how_many(heaps.PER_HEAP) == 1
    assert heaps.how_many(heaps.PER_HEAP + 1) == 2
    assert heaps.how_many(10**12) == heaps.MAX_HEAPS


def test_names_end_somewhere_and_their_number_is_exact() -> None:
    names = [f"{number:05d}" for number in range(3 * named.MAX_NAMED)]
    whole = Named.of(names)
    parts = [Named.of(names[number::4]) for number in range(4)]
    assert (whole.num, whole.num_unnamed) == (len(names), 2 * named.MAX_NAMED)
    assert whole.names == tuple(names[: named.MAX_NAMED])
    assert reduce(add, parts) == reduce(add, reversed(parts)) == whole
    assert not Named()
