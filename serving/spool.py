"""The disk between serving and the log: a record is on it before the request ends, and off it once Kafka has it.

`put` appends one frame to the newest segment file with a single write, which survives `kill -9`, waits for no
network and needs no broker. A shipper thread reads frames in order:

    1. read      a batch of frames, from the marker on
    2. append    each to the log
    3. flush     the log acknowledges them
    4. mark      segments wholly before the last frame are deleted, and the marker file is replaced

A crash before the end of 4 sends the batch again: same ids, kept once by readers. Over `max_bytes` the newest record is
dropped and counted: a full spool must not stall a user's request. A disk that has no room for the marker gets some when
segments are deleted: shipping goes on without it.

What a disk gives back changed is skipped as far as the next whole frame, and counted; its segment is kept beside the
others as `*.damaged`, the newest `MAX_DAMAGED` of those. A last frame that a crash cut off is no damage: `put` had not
returned for it.
"""

import json
import logging
import os
import struct
import threading
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from infra import telemetry
from infra.errors import LogError
from infra.lifecycle import Stop, backoff_s
from infra.telemetry import metrics, names
from ingest.log.protocol import EventLog
from ingest.records.events import Headers

logger = logging.getLogger(__name__)

_HEAD = struct.Struct("<II")  # payload bytes, crc32 of the payload
_MARKER = "shipped.json"
_META = struct.Struct("<I")  # bytes of topic, key and headers as JSON, at the beginning of the payload
_META_OPENS = b'["'
MAX_DAMAGED = 4
_BATCH = 200
_FLUSH_S = 30.0


class Frame(NamedTuple):
    """A record on its way, and where the one after it begins."""

    topic: str
    key: str
    value: bytes
    headers: Headers
    segment: str
    end: int


class Spool:
    """Append-only segments in `folder`. One process writes; a new process begins a new segment."""

    def __init__(self, folder: Path, max_bytes: int, segment_bytes: int) -> None:
        self._folder, self.max_bytes, self._segment_bytes = folder, max_bytes, segment_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._shipped = self._marked()  # segment, and the offset in it
        self._number = max(int(stem) for stem in (self._shipped[0] or "0", *(path.stem for path in self._segments())))
        self._held_bytes = sum(path.stat().st_size for path in self._segments())
        self._file = -1
        self._written = 0
        self._skips: dict[tuple[str, int], int | None] = {}  # segment, offset of damage -> of the frame behind it
        self.num_dropped = 0
        self.arrived = threading.Event()
        self._next_segment()

    def put(self, topic: str, key: str, value: bytes, headers: Headers) -> bool:
        """Store one record. `False`: the disk is full or the bound is reached; it was dropped and counted."""
        meta = json.dumps([topic, key, headers]).encode()
        payload = _META.pack(len(meta)) + meta + value
        frame = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
        with self._lock:
            if self._held_bytes + len(frame) > self.max_bytes:
                return self._drop(f"the spool holds its {self.max_bytes} bytes")
            if self._written >= self._segment_bytes:
                self._next_segment()
            try:
                written = os.write(self._file, frame)
            except OSError as exc:
                return self._drop(str(exc))
            self._written += written
            self._held_bytes += written
            if written < len(frame):
                self._next_segment()
                return self._drop("the disk took only part of it")
        self.arrived.set()
        return True

    def _drop(self, why: str) -> bool:
        self.num_dropped += 1
        logger.error("spool %s: dropped record %d: %s", self._folder, self.num_dropped, why)
        telemetry.count(metrics.TRACES_DROPPED)
        return False

    def _next_segment(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._number += 1
        path = self._folder / f"{self._number:08d}.spool"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._written = 0

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("*.spool"))

    def pending(self) -> Iterator[Frame]:
        """Frames after the marker, oldest first, to the end of what is written now."""
        segment, offset = self._shipped
        for path in self._segments():
            if path.stem < segment:
                continue
            begin: int | None = offset if path.stem == segment else 0
            while begin is not None:
                end = yield from _frames(path, begin)
                begin = None if end is None else self._skip(path, end)

    def _skip(self, path: Path, offset: int) -> int | None:
        """Where the next frame begins behind what is none, if there is one. What is skipped is told once."""
        with self._lock:
            if int(path.stem) == self._number:  # a frame may have been on its way: it is whole now, or never
                self._next_segment()
                return offset
        place = (path.stem, offset)
        if place not in self._skips:
            data = path.read_bytes()[offset:]
            found = _next_frame(data)
            if found == 0:  # it was on its way, and the next segment has begun since
                return offset
            self._skips[place] = None if found is None else offset + found
            told = f"{path.stem}: {len(data) if found is None else found} bytes at {offset} are no record"
            if found is None and _is_cut(data):
                logger.warning("spool %s: segment %s: cut off by a crash or a full disk", self._folder, told)
            else:
                self._keep(path)
                with self._lock:
                    self._drop(f"segment {told}")
        return self._skips[place]

    def _keep(self, path: Path) -> None:
        """Give a damaged segment a second name, which stays when it was shipped; the oldest of too many go."""
        try:
            with suppress(FileExistsError):
                path.with_suffix(".damaged").hardlink_to(path)
            for old in sorted(self._folder.glob("*.damaged"))[:-MAX_DAMAGED]:
                old.unlink()
        except OSError as exc:
            logger.error("spool %s: segment %s is not kept: %s", self._folder, path.stem, exc)

    def _marked(self) -> tuple[str, int]:
        """What the process before had shipped; nothing where its marker is damaged, as power loss may leave it."""
        try:
            marker = json.loads((self._folder / _MARKER).read_text())
            return f"{int(marker['segment']):08d}", int(marker["offset"])
        except FileNotFoundError:
            return "", 0
        except (ValueError, KeyError, TypeError) as exc:
            logger.error("spool %s: %s is damaged, all that lies here is sent again: %s", self._folder, _MARKER, exc)
            return "", 0

    def mark(self, frame: Frame) -> None:
        """Everything up to and with `frame` is on the log."""
        self._shipped = frame.segment, frame.end
        for path in self._segments():
            if path.stem < frame.segment:
                size = path.stat().st_size
                path.unlink()
                with self._lock:
                    self._held_bytes -= size
        self._skips = {place: found for place, found in self._skips.items() if place[0] >= frame.segment}
        part = self._folder / f"{_MARKER}.part"
        try:
            part.write_text(json.dumps({"segment": frame.segment, "offset": frame.end}))
            part.replace(self._folder / _MARKER)
        except OSError as exc:
            logger.error("spool %s: not marked, a restart sends this again: %s", self._folder, exc)

    def held_bytes(self) -> int:
        """Bytes on disk, shipped or not."""
        return self._held_bytes

    def close(self) -> None:
        os.close(self._file)


def _frames(path: Path, offset: int) -> Generator[Frame, None, int | None]:
    """Frames of one segment from `offset` on. Returns where it goes on with what is no frame; `None`: nowhere."""
    with path.open("rb") as file:
        file.seek(offset)
        while head := file.read(_HEAD.size):
            length, crc = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
            is_there = length <= os.fstat(file.fileno()).st_size  # else a damaged length may ask for 4 GiB of memory
            payload = file.read(length) if is_there else b""
            if not _is_payload(payload, length, crc):
                return offset
            offset = file.tell()
            (meta_length,) = _META.unpack_from(payload)
            topic, key, headers = json.loads(payload[_META.size : _META.size + meta_length])
            yield Frame(topic, key, payload[_META.size + meta_length :], headers, path.stem, offset)
    return None


def _is_payload(data: bytes | memoryview, length: int, crc: int) -> bool:
    """Whether `data` is what a frame's head says. Zeros, as a disk that lost power leaves them, are not."""
    return _META.size <= length == len(data) and zlib.crc32(data) == crc


def _next_frame(data: bytes) -> int | None:
    """Where in `data` the first whole frame begins."""
    view, lead = memoryview(data), _HEAD.size + _META.size
    found = data.find(_META_OPENS, lead)
    while found >= 0:
        at = found - lead
        length, crc = _HEAD.unpack_from(data, at)
        begin = at + _HEAD.size
        if length <= len(data) - begin and _is_payload(view[begin : begin + length], length, crc):
            return at
        found = data.find(_META_OPENS, found + 1)
    return None


def _is_cut(data: bytes) -> bool:
    """Whether `data` may be a frame's beginning, and not all of it."""
    return len(data) < _HEAD.size or _HEAD.size + _HEAD.unpack_from(data)[0] > len(data)


class Shipper(threading.Thread):
    """Moves a spool's frames to the log until stopped, through any outage of the broker."""

    def __init__(self, spool: Spool, open_log: Callable[[], EventLog], stop: Stop) -> None:
        super().__init__(name="shipper", daemon=True)
        self._spool, self._open_log, self._stop_flag = spool, open_log, stop
        self._log: EventLog | None = None

    def run(self) -> None:
        telemetry.observe(metrics.SPOOL_BYTES, self._spool.held_bytes)
        telemetry.observe(metrics.SPOOL_LIMIT_BYTES, lambda: self._spool.max_bytes)
        waits = backoff_s(0.2, 10.0)
        while True:
            is_last = self._stop_flag.is_set()
            try:
                self.ship()
                waits = backoff_s(0.2, 10.0)
            except (LogError, OSError) as exc:  # also a disk that cannot be read now: nobody else would ship
                logger.warning("spool: %d bytes wait for the event log: %s", self._spool.held_bytes(), exc)
                if self._stop_flag.wait(next(waits)):
                    break
                continue
            if is_last:
                break
            self._spool.arrived.wait(0.5)
            self._spool.arrived.clear()
        if self._log is not None:
            self._log.close()

    def ship(self) -> int:
        """Move everything pending; how many frames that was. Raises `LogError`."""
        shipped = 0
        batch: list[Frame] = []
        for frame in self._spool.pending():
            batch.append(frame)
            if len(batch) == _BATCH:
                shipped += self._send(batch)
                batch = []
        return shipped + (self._send(batch) if batch else 0)

    def _send(self, batch: list[Frame]) -> int:
        if self._log is None:
            self._log = self._open_log()
        topic = batch[0].topic  # an engine spools traces and a router feedback
        about: names.Told = {**names.messaging("send", topic), names.BATCH_COUNT: len(batch)}
        with telemetry.span(names.SHIP, about, links=(frame.headers for frame in batch), of=topic):
            for frame in batch:
                self._log.append(frame.topic, frame.key, frame.value, frame.headers)
            self._log.flush(_FLUSH_S)
        self._spool.mark(batch[-1])
        telemetry.count(metrics.SENT, len(batch), names.messaging("send", topic))
        return len(batch)

    def finish(self, timeout_s: float) -> None:
        """Stop, and ship for so long what is left; what stays on disk ships at the next start.

        The thread ends with the process where a broker keeps it waiting: a frame in flight is sent again then.
        """
        self._stop_flag.set()
        self._spool.arrived.set()
        self.join(timeout_s)
        if self.is_alive():
            logger.warning("spool: its last frames may stay on disk until the next start")
