"""The disk between serving and the log."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import until
from told import telling

from infra.errors import LogError
from infra.lifecycle import Stop
from infra.telemetry import metrics
from ingest.log.memory import InMemoryLog
from ingest.records.events import Headers
from serving.spool import MAX_DAMAGED, Shipper, Spool


def spool(folder: Path, max_bytes: int = 1 << 20, segment_bytes: int = 1 << 12) -> Spool:
    return Spool(folder, max_bytes, segment_bytes)


def fill(held: Spool, first: int, last: int) -> None:
    for n in range(first, last):
        assert held.put("traces", f"k{n}", f"value {n}".encode(), {"n": str(n)})


def values(log: InMemoryLog) -> list[bytes]:
    return [message.value for message in log.replay("traces")]


def test_everything_put_is_shipped_once_and_in_order(tmp_path: Path) -> None:
    held, log = spool(tmp_path), InMemoryLog()
    shipper = Shipper(held, lambda: log, Stop())
    fill(held, 0, 300)
    assert shipper.ship() == 300
    fill(held, 300, 310)
    assert shipper.ship() == 10
    assert shipper.ship() == 0
    assert values(log) == [f"value {n}".encode() for n in range(310)]
    held.close()


def test_a_new_process_ships_what_the_old_one_left(tmp_path: Path) -> None:
    held, log = spool(tmp_path), InMemoryLog()
    fill(held, 0, 5)
    Shipper(held, lambda: log, Stop()).ship()
    fill(held, 5, 9)
    held.close()
    again = spool(tmp_path)
    fill(again, 9, 12)
    assert Shipper(again, lambda: log, Stop()).ship() == 7
    assert values(log) == [f"value {n}".encode() for n in range(12)]
    again.close()


def test_a_torn_last_frame_costs_only_itself(tmp_path: Path) -> None:
    held, log = spool(tmp_path), InMemoryLog()
    fill(held, 0, 3)
    held.close()
    segment = next(tmp_path.glob("*.spool"))
    segment.write_bytes(segment.read_bytes()[:-4])
    again = spool(tmp_path)
    fill(again, 3, 5)
    Shipper(again, lambda: log, Stop()).ship()
    assert values(log) == [b"value 0", b"value 1", b"value 3", b"value 4"]
    assert again.num_dropped == 0 and damaged(tmp_path) == []
    again.close()


def test_a_frame_whose_bytes_changed_on_disk_is_not_shipped(tmp_path: Path) -> None:
    held, log = spool(tmp_path), InMemoryLog()
    fill(held, 0, 3)
    held.close()
    segment = next(tmp_path.glob("*.spool"))
    segment.write_bytes(segment.read_bytes().replace(b"value 2", b"value 7"))
    again = spool(tmp_path)
    Shipper(again, lambda: log, Stop()).ship()
    assert values(log) == [b"value 0", b"value 1"]
    assert again.num_dropped == 1
    again.close()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "changed": lambda frame: frame.replace(b"value 1", b"value 7"),
    "too long": lambda frame: b"\xff" * 4 + frame[4:],
    "a little longer": lambda frame: bytes([frame[0] + 1]) + frame[1:],
    "zeros": lambda frame: bytes(len(frame)),
}


def damaged(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.damaged"))


def damage(folder: Path, segment: int = 1, how: str = "changed") -> None:
    """Change the second frame of a segment, which has `value 1`."""
    path = folder / f"{segment:08d}.spool"
    data = path.read_bytes()
    end = data.index(b"value 0") + len(b"value 0")
    until = data.index(b"value 1") + len(b"value 1")
    path.write_bytes(data[:end] + DAMAGES[how](data[end:until]) + data[until:])


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_frame_costs_only_itself_is_counted_once_and_its_segment_is_kept(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    held, log = spool(tmp_path), InMemoryLog()
    fill(held, 0, 4)
    held.close()
    damage(tmp_path, how=how)
    before = (tmp_path / "00000001.spool").read_bytes()
    again = spool(tmp_path)
    for _ in range(3):
        assert len(list(again.pending())) == 3
    fill(again, 4, 5)
    Shipper(again, lambda: log, Stop()).ship()
    assert values(log) == [b"value 0", b"value 2", b"value 3", b"value 4"]
    assert again.num_dropped == 1
    (told,) = (one.getMessage() for one in caplog.records if one.levelname == "ERROR")
    assert "segment 00000001: " in told and "are no record" in told
    assert not (tmp_path / "00000001.spool").exists()
    assert (tmp_path / "00000001.damaged").read_bytes() == before
    again.close()


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_in_the_segment_that_is_written_holds_up_nothing(tmp_path: Path, how: str) -> None:
    held, log = spool(tmp_path), InMemoryLog()
    fill(held, 0, 4)
    damage(tmp_path, how=how)
    shipper = Shipper(held, lambda: log, Stop())
    shipper.ship()
    fill(held, 4, 6)
    shipper.ship()
    assert values(log) == [f"value {n}".encode() for n in (0, 2, 3, 4, 5)]
    held.close()


def test_only_the_newest_damaged_segments_are_kept(tmp_path: Path) -> None:
    for segment in range(1, MAX_DAMAGED + 3):
        held = spool(tmp_path)
        fill(held, 0, 3)
        held.close()
        damage(tmp_path, segment)
    again = spool(tmp_path)
    assert Shipper(again, InMemoryLog, Stop()).ship() == 2 * (MAX_DAMAGED + 2)
    assert damaged(tmp_path) == [f"{number:08d}" for number in range(3, MAX_DAMAGED + 3)]
    again.close()


def test_a_frame_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    held = spool(tmp_path)
    fill(held, 0, 2)
    (segment,) = tmp_path.glob("*.spool")
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-3])

    class Writer:
        """Has the lock while it writes."""

        def __enter__(self) -> None:
            segment.write_bytes(whole)

        def __exit__(self, *_: object) -> None:
            pass

    held._lock = Writer()  # type: ignore[assignment]
    assert [frame.value for frame in held.pending()] == [b"value 0", b"value 1"]
    assert held.num_dropped == 0 and damaged(tmp_path) == []
    held.close()


def test_a_frame_that_was_being_written_when_the_next_segment_began_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, skip = spool(tmp_path, segment_bytes=1), Spool._skip
    fill(held, 0, 1)
    (segment,) = tmp_path.glob("*.spool")
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-3])

    def late(self: Spool, path: Path, offset: int) -> int | None:
        segment.write_bytes(whole)
        if held._number == 1:
            fill(held, 1, 2)
        return skip(self, path, offset)

    monkeypatch.setattr(Spool, "_skip", late)
    log = InMemoryLog()
    shipper = Shipper(held, lambda: log, Stop())
    shipper.ship()
    shipper.ship()
    assert values(log) == [b"value 0", b"value 1"]
    assert held.num_dropped == 0 and damaged(tmp_path) == []
    held.close()


def test_a_full_spool_drops_the_newest_and_counts_it(tmp_path: Path) -> None:
    held = spool(tmp_path, max_bytes=300)
    taken = [held.put("traces", "k", b"x" * 40, {}) for _ in range(10)]
    assert taken[0]
    assert not taken[-1]
    assert held.num_dropped == taken.count(False)
    held.close()


def test_shipped_segments_leave_the_disk(tmp_path: Path) -> None:
    held = spool(tmp_path, segment_bytes=200)
    fill(held, 0, 100)
    before = held.held_bytes()
    Shipper(held, InMemoryLog, Stop()).ship()
    assert held.held_bytes() < before
    assert len(list(tmp_path.glob("*.spool"))) <= 2
    held.close()


def test_a_disk_that_takes_no_marker_stops_no_shipping_and_is_emptied(tmp_path: Path) -> None:
    held, log, stop = spool(tmp_path, segment_bytes=200), InMemoryLog(), Stop()
    (tmp_path / "shipped.json.part").mkdir()  # as where the disk is full
    shipper = Shipper(held, lambda: log, stop)
    shipper.start()
    for n in range(20):
        fill(held, n, n + 1)
        until(lambda n=n: len(values(log)) == n + 1)
    shipper.finish(10.0)
    assert values(log) == [f"value {n}".encode() for n in range(20)]
    assert len(list(tmp_path.glob("*.spool"))) == 1
    held.close()


def test_a_disk_that_cannot_be_read_for_a_moment_does_not_end_the_shipper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, log, failures, real = spool(tmp_path), InMemoryLog(), [OSError(5, "Input/output error")], Spool.pending

    def pending(self: Spool) -> object:
        if failures:
            raise failures.pop()
        return real(self)

    monkeypatch.setattr(Spool, "pending", pending)
    shipper = Shipper(held, lambda: log, Stop())
    fill(held, 0, 1)
    shipper.start()
    until(lambda: values(log) == [b"value 0"])
    shipper.finish(10.0)
    held.close()


@pytest.mark.parametrize("marker", ["", "[]", '{"segment": "00000001"}'])
def test_a_damaged_marker_costs_nothing_but_sending_again(tmp_path: Path, marker: str) -> None:
    held, log = spool(tmp_path), InMemoryLog()
    fill(held, 0, 2)
    Shipper(held, lambda: log, Stop()).ship()
    held.close()
    (tmp_path / "shipped.json").write_text(marker)
    again = spool(tmp_path)
    fill(again, 2, 3)
    Shipper(again, lambda: log, Stop()).ship()
    assert values(log) == [b"value 0", b"value 1", b"value 0", b"value 1", b"value 2"]
    again.close()


def test_what_is_put_after_segments_were_removed_by_hand_is_shipped(tmp_path: Path) -> None:
    for n in range(3):
        held, log = spool(tmp_path), InMemoryLog()
        fill(held, n, n + 1)
        Shipper(held, lambda log=log: log, Stop()).ship()
        held.close()
    for path in tmp_path.glob("*.spool"):
        path.unlink()
    held = spool(tmp_path)
    fill(held, 3, 4)
    Shipper(held, lambda: log, Stop()).ship()
    assert values(log)[-1] == b"value 3"
    held.close()


def test_how_full_a_spool_is_can_be_told_from_its_metrics(tmp_path: Path) -> None:
    held, stop = spool(tmp_path, max_bytes=5000), Stop()
    fill(held, 0, 3)
    with telling() as told:
        shipper = Shipper(held, InMemoryLog, stop)
        shipper.start()
        shipper.finish(10.0)
        found = told.value(metrics.SPOOL_BYTES), told.value(metrics.SPOOL_LIMIT_BYTES)
    assert found == (held.held_bytes(), 5000)
    held.close()


def test_what_was_put_until_the_end_is_shipped_before_it(tmp_path: Path) -> None:
    held, log, stop = spool(tmp_path), InMemoryLog(), Stop()
    shipper = Shipper(held, lambda: log, stop)
    fill(held, 0, 50)
    stop.set()
    shipper.start()
    shipper.finish(10.0)
    assert not shipper.is_alive()
    assert values(log) == [f"value {n}".encode() for n in range(50)]
    held.close()


class HangingLog(InMemoryLog):
    """Takes records and never says that it has them, until let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go, self.is_asked = threading.Event(), threading.Event()

    def flush(self, timeout_s: float) -> None:
        self.is_asked.set()
        self.let_go.wait(30.0)


def test_a_broker_that_hangs_does_not_hold_the_end_up(tmp_path: Path) -> None:
    held, log = spool(tmp_path), HangingLog()
    shipper = Shipper(held, lambda: log, Stop())
    shipper.start()
    fill(held, 0, 5)
    assert log.is_asked.wait(10.0)
    shipper.finish(0.05)
    assert shipper.is_alive() and shipper.daemon
    assert len(list(held.pending())) == 5, "what was not acknowledged ships at the next start"
    log.let_go.set()
    shipper.join(10.0)
    held.close()


def test_a_broker_that_was_away_a_moment_ago_is_not_waited_for_again(tmp_path: Path) -> None:
    held, tries = spool(tmp_path), []

    def no_log() -> InMemoryLog:
        tries.append(1)
        raise LogError("no broker answers")

    shipper = Shipper(held, no_log, Stop())
    shipper.start()
    fill(held, 0, 5)
    until(lambda: tries)
    shipper.finish(10.0)
    assert not shipper.is_alive()
    assert len(list(held.pending())) == 5
    held.close()


class FlakyLog(InMemoryLog):
    """Refuses the first `failures` flushes, after having taken the records: the worst kind of timeout."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def flush(self, timeout_s: float) -> None:
        if self.failures:
            self.failures -= 1
            raise LogError("no acknowledgement")


def test_an_unacknowledged_batch_is_sent_again_not_lost(tmp_path: Path) -> None:
    held, log = spool(tmp_path), FlakyLog(failures=1)
    shipper = Shipper(held, lambda: log, Stop())
    fill(held, 0, 4)
    with pytest.raises(LogError):
        shipper.ship()
    assert shipper.ship() == 4
    assert set(values(log)) == {f"value {n}".encode() for n in range(4)}
    held.close()


WRITER = """
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from serving.spool import Spool
held = Spool(Path(sys.argv[1]), 1 << 20, 1 << 12)
n = 0
while True:
    held.put("traces", "k", str(n).encode(), {})
    print(n, flush=True)
    n += 1
"""


def test_what_put_returned_for_survives_kill_9(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(200)]
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    held, log = spool(tmp_path), InMemoryLog()
    Shipper(held, lambda: log, Stop()).ship()
    assert {int(value) for value in values(log)} >= set(acknowledged)
    held.close()


def test_headers_and_keys_arrive_as_they_were(tmp_path: Path) -> None:
    held, log = spool(tmp_path), InMemoryLog()
    headers: Headers = {"schema": "trace/1", "traceparent": "00-ab-cd-01"}
    held.put("traces", "key", b"\x00\xff", headers)
    Shipper(held, lambda: log, Stop()).ship()
    (message,) = log.replay("traces")
    assert (message.key, message.value, message.headers) == ("key", b"\x00\xff", headers)
    held.close()
