"""What `onstream status` counts on the log."""

from ingest.log.letters import Failure, write
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message
from ingest.log.topics import dead_letters, late_letters
from serving.status import lost_feedback

DEAD, LATE = dead_letters("feedback", "ingest"), late_letters("feedback", "ingest")


def put(log: InMemoryLog, topic: str, offset: int, failure: Failure) -> None:
    write(log, topic, Message("feedback", 0, offset, "key", b"{}", {}), failure, "because")


def test_feedback_that_no_session_has_is_counted_once_and_by_why() -> None:
    log = InMemoryLog()
    for offset, failure in [
        (0, Failure.UNCLAIMED),
        (1, Failure.UNCLAIMED),
        (1, Failure.UNCLAIMED),
        (4, Failure.UNCLAIMED),
    ]:
        put(log, DEAD, offset, failure)
    put(log, DEAD, 2, Failure.UNREADABLE)
    put(log, LATE, 3, Failure.LATE)
    assert lost_feedback(log) == {"about nothing known": 3, "late": 1, "unreadable": 1}


def test_a_log_without_letters_has_lost_no_feedback() -> None:
    assert set(lost_feedback(InMemoryLog()).values()) == {0}
