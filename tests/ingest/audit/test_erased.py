"""Records of erased people: what their headers name is accounted for like anything else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from closing import trajectory

from ingest.audit.account import OPEN_SESSION, Account, Limits
from ingest.audit.feedback import WAITING_FOR_SESSION
from ingest.audit.reading import take
from ingest.log.memory import InMemoryLog
from ingest.log.topics import FATES, FEEDBACK, TRACES, TRAJECTORIES, Topic
from ingest.privacy.keys import KeyStore
from ingest.privacy.sealed_log import SUBJECT_HEADER, SealedLog
from ingest.privacy.secret import Secret
from ingest.records import codec
from ingest.records.events import Fate, FateKind, Feedback, Record, Trace, session_key
from ingest.records.named import IDS_HEADER, feedback_header, ids_header

MakeTrace = Callable[..., Trace]
MakeFeedback = Callable[..., Feedback]

LIMITS = Limits(inactivity_s=60.0, horizon_s=300.0, retention_s=1000.0, grace_s=10.0)
ANNA = "user-0a1b"


class World:
    """A log whose records of Anna are sealed."""

    def __init__(self, folder: Path) -> None:
        self.keys = KeyStore(str(folder), Secret.parse("0f" * 32, "test"), cache_s=0.0)
        self.log = SealedLog(InMemoryLog(), self.keys)

    def put(self, topic: Topic, record: Record, ids: str | None = None, session: str = "s") -> None:
        """Append; sealed for Anna where `ids` says what its header names."""
        value, headers = codec.encode(record)
        sealing = {} if ids is None else {SUBJECT_HEADER: ANNA, IDS_HEADER: ids}
        self.log.append(topic.name, session_key(session), value, headers | sealing)

    def put_trace(self, trace: Trace) -> None:
        self.put(TRACES, trace, ids_header([trace.trace_id]), trace.session_id)

    def taken(self, now: float) -> Account:
        found = take(self.log, LIMITS, now)
        outcomes = found.by_fate.total() + found.in_flight.total() + found.unexplained.num + found.conflicts.num
        assert found.num_traces == outcomes
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("reason", ["too old", "erased"])
def test_an_erased_trace_counts_by_its_id_with_the_fate_it_has(
    world: World, make_trace: MakeTrace, reason: str
) -> None:
    world.put_trace(trace := make_trace(at=0.0))
    world.put(FATES, Fate(trace_ids=(trace.trace_id,), kind=FateKind.REFUSED, reason=reason, at=1.0))
    before = world.taken(5000.0)
    world.keys.erase(ANNA)
    assert world.taken(5000.0) == before
    assert (before.num_traces, before.by_reason) == (1, {("refused", reason): 1})


def test_an_erased_trace_has_the_time_of_the_newest_before_it_and_is_unexplained_after_that(
    world: World, make_trace: MakeTrace
) -> None:
    world.put(TRACES, make_trace("other", at=499.0), session="other")
    world.put(FATES, Fate(trace_ids=(make_trace("other").trace_id,), kind=FateKind.EXPIRED, reason="", at=1.0))
    world.put_trace(trace := make_trace(at=510.0))
    world.keys.erase(ANNA)
    assert world.taken(570.0).in_flight == {OPEN_SESSION: 1}
    (line,) = world.taken(570.1).unexplained.names
    assert line.startswith(f"{trace.trace_id}: is in no trajectory")


@pytest.mark.parametrize("spelling", ["00112233445566778899aabbccddeeff", ":ABEiM0RVZneImaq7zN3u_w"])
def test_an_erased_trace_is_known_by_its_id_however_its_header_spells_that(
    world: World, make_trace: MakeTrace, spelling: str
) -> None:
    name = f"{session_key('s')}-00112233445566778899aabbccddeeff"
    world.put(TRACES, make_trace(trace_id=name), spelling)
    world.put(FATES, Fate(trace_ids=(name,), kind=FateKind.EXPIRED, reason="", at=1.0))
    world.keys.erase(ANNA)
    assert world.taken(5000.0).by_fate == {FateKind.EXPIRED: 1}


def test_an_erased_trace_delivered_twice_counts_once(world: World, make_trace: MakeTrace) -> None:
    for _ in range(2):
        world.put_trace(trace := make_trace())
    world.keys.erase(ANNA)
    found = world.taken(0.0)
    assert (found.num_traces, found.duplicates.names) == (1, (trace.trace_id,))


def test_an_erased_message_that_names_nothing_is_refused_as_erased(world: World, make_trace: MakeTrace) -> None:
    world.put(TRACES, make_trace(), ids="")
    world.put(FEEDBACK, Feedback(feedback_id="f", session_id="s", tenant="t", value=1.0, at=0.0), ids="")
    world.keys.erase(ANNA)
    found = world.taken(5000.0)
    assert (found.num_traces, found.by_reason, found.is_complete()) == (1, {("refused", "erased"): 1}, True)
    assert (found.feedback.num_feedback, found.feedback.by_outcome) == (1, {("erased", "with its person"): 1})


def test_feedback_of_a_session_whose_trajectory_was_erased_is_erased_and_never_unexplained(
    world: World, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    trace, given = make_trace(), make_feedback(session_id="s")
    world.put(FEEDBACK, given)
    world.put(FEEDBACK, make_feedback(1, session_id="unheard"), session="unheard")
    closed = trajectory(trace, feedback=(given,))
    world.put(TRAJECTORIES, closed, ids_header([trace.trace_id]))
    assert world.taken(200.0).feedback.by_outcome == {("joined", ""): 1}
    world.keys.erase(ANNA)
    found = world.taken(200.0).feedback
    assert (found.by_outcome, found.in_flight) == ({("erased", "with its person"): 1}, {WAITING_FOR_SESSION: 1})


def test_erased_feedback_counts_once_by_its_id_joined_if_its_session_has_it(
    world: World, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    joined, alone = make_feedback(0, session_id="s", comment="hers"), make_feedback(1, session_id="s", comment="too")
    for given in (joined, joined, alone):
        world.put(FEEDBACK, given, feedback_header(given.feedback_id))
    world.put(TRAJECTORIES, trajectory(make_trace(), feedback=(joined,)))
    world.keys.erase(ANNA)
    found = world.taken(5000.0).feedback
    assert (found.num_feedback, found.unexplained.num) == (2, 0)
    assert found.by_outcome == {("joined", ""): 1, ("erased", "with its person"): 1}
