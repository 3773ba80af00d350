"""Values that lie in a store: what is written first, what is read when it is gone, and what is swept."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.config import LogConfig
from infra.errors import LogError, RecordError
from infra.lifecycle import Stop
from ingest.log import claims as module
from ingest.log import reader, topics
from ingest.log.claims import CLAIM, ClaimLog, Claims, keep_sweeping
from ingest.log.kafka_log import KafkaLog
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message
from ingest.log.reader import Reader
from ingest.records import codec
from ingest.records.events import Trace

DAY_S = 86_400.0
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
LIMIT = 100
LARGE = b"x" * (LIMIT + 1)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "claims"


@pytest.fixture
def claims(root: Path, clock: Clock) -> Claims:
    return Claims(str(root), retention_s=DAY_S, clock=clock)


@pytest.fixture
def log(claims: Claims) -> ClaimLog:
    return ClaimLog(InMemoryLog(), claims, LIMIT)


def stored(root: Path) -> list[Path]:
    """Values in the store."""
    return sorted(path for path in root.glob("*/*/*"))


def only(log: ClaimLog, topic: str = "t") -> Message:
    (message,) = log.replay(topic)
    return message


def test_a_value_above_the_limit_lies_in_the_store_and_its_record_says_where(log: ClaimLog, root: Path) -> None:
    log.append("t", "key", LARGE, {"schema": "trace/1"})
    (lies,) = log.inner.replay("t")
    assert (lies.key, lies.value) == ("key", b"")
    path, digest, size = lies.headers[CLAIM].split()
    assert path == f"t/2026-11-25/{digest}"
    assert int(size) == len(LARGE)
    assert (root / path).read_bytes() == LARGE
    assert (only(log).value, only(log).headers) == (LARGE, {"schema": "trace/1"})


def test_a_value_at_the_limit_stays_on_the_log(log: ClaimLog, root: Path) -> None:
    log.append("t", "key", LARGE[:LIMIT], {})
    (lies,) = log.inner.replay("t")
    assert lies.value == LARGE[:LIMIT]
    assert not root.exists()


def test_a_record_of_megabytes_passes_a_broker_as_a_claim(kafka_config: LogConfig, claims: Claims) -> None:
    log = ClaimLog(KafkaLog(kafka_config, "test"), claims, 983_040)
    value = bytes(range(256)) * 100_000  # 25.6 MB: no topic would take it
    log.append("claimed", "key", value, {})
    log.flush(10.0)
    lies = log.inner.fetch("claimed", 0, 0)
    assert lies is not None
    assert lies.value == b""
    found = log.fetch("claimed", 0, 0)
    assert found is not None
    assert found.value == value
    log.close()


def test_the_same_content_is_stored_once_a_topic_and_day(log: ClaimLog, root: Path, clock: Clock) -> None:
    for topic in ("t", "t", "u"):
        log.append(topic, "key", LARGE, {})
    assert len(stored(root)) == 2
    clock.now += DAY_S
    log.append("t", "key", LARGE, {})
    assert [path.parent.name for path in stored(root)] == ["2026-11-25", "2026-11-26", "2026-11-25"]


def test_nothing_is_appended_when_the_store_takes_nothing(log: ClaimLog, root: Path) -> None:
    root.write_text("a file where a folder should be")
    with pytest.raises(LogError, match=f"claims: {root}: write t/2026-11-25/"):
        log.append("t", "key", LARGE, {})
    assert list(log.inner.replay("t")) == []


def test_a_value_that_was_stored_when_its_process_died_is_claimed_by_the_record_sent_again(
    log: ClaimLog, claims: Claims, root: Path
) -> None:
    claims.put("t", LARGE)
    (path,) = stored(root)
    before = path.stat()
    log.append("t", "key", LARGE, {})
    assert stored(root) == [path]
    assert path.stat() == before, "it was written again"
    assert only(log).value == LARGE


def test_a_value_half_written_is_no_value(
    log: ClaimLog, claims: Claims, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(path: str, value: bytes) -> None:
        Path(path).write_bytes(value[:10])
        if value:
            raise OSError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(claims._fs, "pipe_file", die)
        with pytest.raises(LogError, match="killed here"):
            log.append("t", "key", LARGE, {})
    log.append("t", "key", LARGE, {})
    assert only(log).value == LARGE


def lose(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    path.write_bytes(b"y" * len(LARGE))


@pytest.mark.parametrize(("spoil", "told"), [(lose, "not in"), (damage, "must have 101 bytes of that digest, got 101")])
def test_a_value_that_is_gone_is_no_error_of_the_log_and_decoding_names_the_claim(
    log: ClaimLog, root: Path, spoil: Callable[[Path], None], told: str
) -> None:
    log.append("t", "key", LARGE, {"schema": "trace/1"})
    (path,) = stored(root)
    spoil(path)
    found = log.fetch("t", 0, 0)
    assert found is not None
    for message in (only(log), found, *log.subscribe(["t"], "group").poll(1.0)):
        with pytest.raises(RecordError, match=f"claim t/2026-11-25/{path.name}: {told}"):
            codec.decode(message.value, message.headers, Trace)


def test_a_record_whose_value_is_gone_is_dead_lettered_and_the_next_is_read(
    log: ClaimLog, root: Path, make_trace: Callable[..., Trace]
) -> None:
    for number in range(2):
        reader.send(log, topics.TRACES, "key", make_trace(n=number))
    gone = stored(root)[0]
    value = gone.read_bytes()
    gone.unlink()
    stage = Reader(log, [topics.TRACES], "group")
    records = [record for _, record in stage.poll(1.0)]
    assert [record is None for record in records].count(True) == 1
    assert len(records) == 2
    letter = only(log, topics.dead_letters("traces", "group"))
    assert letter.headers["onstream.errors.exception"] == "RecordError"
    assert gone.name in letter.headers["onstream.errors.message"]
    gone.write_bytes(value)
    letter = only(log, topics.dead_letters("traces", "group"))
    assert codec.decode(letter.value, letter.headers, Trace).session_id == "s"


def test_a_store_that_is_not_there_is_read_again_later(log: ClaimLog, root: Path) -> None:
    log.append("t", "key", LARGE, {})
    subscription = log.subscribe(["t"], "group")
    root.rename(root.with_name("elsewhere"))
    for read in (lambda: subscription.poll(1.0), lambda: log.fetch("t", 0, 0), lambda: list(log.replay("t"))):
        with pytest.raises(LogError, match=f"{root} is not the store, or not there"):
            read()
    root.with_name("elsewhere").rename(root)
    assert [message.value for message in subscription.poll(1.0)] == [LARGE]


@pytest.mark.parametrize(
    "error", [ConnectionError("refused"), PermissionError("denied"), RuntimeError("a client's own")]
)
def test_a_store_that_does_not_answer_is_read_again_later(
    log: ClaimLog, claims: Claims, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    log.append("t", "key", LARGE, {})
    subscription = log.subscribe(["t"], "group")
    with monkeypatch.context() as patch:
        patch.setattr(claims._fs, "cat_file", fail)
        with pytest.raises(LogError, match=str(error)):
            subscription.poll(1.0)
    assert [message.value for message in subscription.poll(1.0)] == [LARGE]


@pytest.mark.parametrize(
    "claim",
    [
        "",
        "t/2026-11-25/abc abc 3",
        f"../2026-11-25/{'a' * 64} {'a' * 64} 3",
        f"t/../{'a' * 64} {'a' * 64} 3",
        f"t/2026-11-25/{'a' * 64} {'b' * 64} 3",
    ],
)
def test_a_header_that_is_no_claim_is_refused(claims: Claims, claim: str) -> None:
    with pytest.raises(RecordError, match="must be <topic>/<day>/<sha256> <sha256> <bytes>"):
        claims.get(claim)


def test_a_value_that_even_the_store_may_not_have_is_refused(
    log: ClaimLog, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CLAIM_BYTES", 2 * LIMIT)
    with pytest.raises(RecordError, match=f"t: a record may have {2 * LIMIT} bytes, got {2 * LIMIT + 1}"):
        log.append("t", "key", bytes(2 * LIMIT + 1), {})
    assert stored(root) == []


def test_a_sweep_removes_days_of_which_no_record_can_be_left(claims: Claims, root: Path, clock: Clock) -> None:
    last = clock.now + DAY_S / 2 - 1  # of the day
    claim = claims.put("t", LARGE)
    gone_at = last + topics.gone_after_s(DAY_S)
    assert claims.sweep(gone_at) == 0
    assert claims.get(claim) == LARGE
    assert claims.sweep(gone_at + 2) == 1
    assert stored(root) == []
    assert claims.sweep(gone_at + 2) == 0
    with pytest.raises(RecordError, match="not in"):
        claims.get(claim)


def test_a_sweep_leaves_topics_that_are_kept_for_ever_and_what_it_does_not_know(claims: Claims, root: Path) -> None:
    claims.put("releases", LARGE)
    claims.put("t", LARGE)
    (root / "t" / "notes").mkdir()
    (root / "t" / "2001-01-01").write_text("a file")
    assert claims.sweep(NOON + 1000 * DAY_S) == 1
    assert {path.name for path in root.iterdir()} == {"releases", "t", "claims-lie-here"}
    assert {path.name for path in (root / "t").iterdir()} == {"notes", "2001-01-01"}
    assert len(stored(root)) == 1


def test_a_sweep_of_a_store_that_was_never_written_removes_nothing(claims: Claims) -> None:
    assert claims.sweep(NOON) == 0


def test_sweeping_goes_on_after_a_store_that_did_not_answer(monkeypatch: pytest.MonkeyPatch, claims: Claims) -> None:
    monkeypatch.setattr(module, "_SWEEP_EVERY_S", 0.01)
    stop, swept = Stop(), 0

    def sweep(_now: float) -> int:
        nonlocal swept
        swept += 1
        if swept == 3:
            stop.set()
        raise LogError("claims: away")

    monkeypatch.setattr(claims, "sweep", sweep)
    sweeping = threading.Thread(target=keep_sweeping, args=(claims, stop))
    sweeping.start()
    sweeping.join(10.0)
    assert swept == 3
