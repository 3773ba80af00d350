"""The claim check: values too large for a record lie in a store, and the log has a small record that claims them.

The order of appending such a value, and what a crash after each step leaves:

    1. mark       `_MARK`, once a store: by it a reader knows that it looks at the store, and not at a place where
                  one is to be mounted
    2. value      <topic>/<day>/<sha256>, renamed into place; swept when it is older than any record
    3. record     no value, the header `claim`: <path> <sha256> <bytes>; appended again after a crash, with the same
                  content, it claims what is there
    4. flush      the caller's; the record is durable, and never without its value

A record whose value is missing or differs can never be used: it is given with the header `UNUSABLE`, which decoding
refuses, so that it becomes a dead letter. A store that does not answer, or is not there, is a `LogError`: what was
read is read again later.
"""

import hashlib
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

import fsspec  # type: ignore[import-untyped]

from infra.errors import LogError, RecordError
from infra.lifecycle import Stop
from ingest.log import topics
from ingest.log.protocol import EventLog, Message
from ingest.log.wrapped import WrappedLog
from ingest.records.codec import UNUSABLE
from ingest.records.events import Headers

CLAIM = "claim"
MAX_CLAIM_BYTES = 256 << 20  # held in memory a few times over when written and when read
_MARK = "claims-lie-here"
_PATH = r"(?!\.\.?/)[A-Za-z0-9._-]+/\d{4}-\d\d-\d\d/(?P<sha256>[0-9a-f]{64})"
_FORM = re.compile(rf"(?P<path>{_PATH}) (?P=sha256) (?P<bytes>\d{{1,15}})")
_SWEEP_EVERY_S = 3600.0

logger = logging.getLogger(__name__)


class Claims:
    """Values below `url`, any fsspec URL or a local path. Safe for use from several threads and processes."""

    def __init__(self, url: str, retention_s: float, clock: Callable[[], float] = time.time) -> None:
        """`retention_s` is that of the topics which are not kept for ever. Raises `LogError`."""
        self._retention_s, self._clock = retention_s, clock
        self._root, self._is_marked = url, False
        with self._border("open"):
            self._fs, self._root = fsspec.core.url_to_fs(url)

    def put(self, topic: str, value: bytes) -> str:
        """Store `value`; what the header `claim` says of it. The same content is stored once a topic and day.

        Raises:
            LogError: the store does not take it now.
        """
        digest = hashlib.sha256(value).hexdigest()
        path = f"{topic}/{_day(self._clock())}/{digest}"
        with self._border(f"write {path}"):
            if not self._is_marked:
                self._write(_MARK, b"")
                self._is_marked = True
            self._write(path, value)
        return f"{path} {digest} {len(value)}"

    def _write(self, path: str, value: bytes) -> None:
        """Write whole or not at all, and not again."""
        target = f"{self._root}/{path}"
        if self._fs.exists(target):
            return
        part = f"{target}.{uuid.uuid4().hex}.part"
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(part, value)
        self._fs.mv(part, target)

    def get(self, claim: str) -> bytes:
        """The value that a header `claim` names, as it was put.

        Raises:
            RecordError: the store is there and the value is not, or is another.
            LogError: the store does not answer, or is not there.
        """
        form = _FORM.fullmatch(claim)
        if form is None:
            raise RecordError(f"claim {claim!r}: must be <topic>/<day>/<sha256> <sha256> <bytes>")
        with self._border(f"read {form['path']}"):
            value = self._read(form["path"])
        if value is None:
            raise RecordError(f"claim {form['path']}: not in {self._root}")
        digest = hashlib.sha256(value).hexdigest()
        if digest != form["sha256"]:
            raise RecordError(
                f"claim {form['path']}: must have {form['bytes']} bytes of that digest, got {len(value)} of {digest}"
            )
        return value

    def _read(self, path: str) -> bytes | None:
        try:
            found: bytes = self._fs.cat_file(f"{self._root}/{path}")
        except FileNotFoundError as exc:
            self._fs.invalidate_cache()
            if self._fs.exists(f"{self._root}/{_MARK}"):
                return None
            raise LogError(f"claims: {self._root} is not the store, or not there: it has no {_MARK}") from exc
        return found

    def sweep(self, now: float) -> int:
        """Remove the values of days so old that no topic has a record of them; the number of such days, of all topics.

        Values of topics that are kept for ever stay. Safe while others write, read and sweep. Raises `LogError`.
        """
        forever = {topic.name for topic in topics.ALL if topic.ordered}
        with self._border("sweep"):
            last = _day(now - topics.gone_after_s(self._retention_s)) - timedelta(days=1)
            self._fs.invalidate_cache()
            names = [name for name in self._folders("") if name not in forever]
            days = [f"{name}/{day}" for name in names for day in self._folders(name) if _is_until(day, last)]
            for day in days:
                self._remove(f"{self._root}/{day}")
        return len(days)

    def _folders(self, path: str) -> list[str]:
        try:
            listed = self._fs.ls(f"{self._root}/{path}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return []
        return [one["name"].rstrip("/").rpartition("/")[2] for one in listed if one["type"] == "directory"]

    def _remove(self, folder: str) -> None:
        try:
            self._fs.rm(folder, recursive=True)
        except FileNotFoundError:  # another process sweeps too
            logger.debug("claims: %s was removed meanwhile", folder)

    @contextmanager
    def _border(self, what: str) -> Iterator[None]:
        try:
            yield
        except LogError:
            raise
        except Exception as exc:  # every kind of store has errors of its own, and each means: not now
            raise LogError(f"claims: {self._root}: {what}: {type(exc).__name__}: {exc}") from exc


def _day(at: float) -> date:
    return datetime.fromtimestamp(at, UTC).date()


def _is_until(name: str, last: date) -> bool:
    """Whether `name` is that of a day, and it is not after `last`."""
    try:
        return date.fromisoformat(name) <= last
    except ValueError:
        return False


class ClaimLog(WrappedLog):
    """`inner`, where values above `max_record_bytes` are claims."""

    def __init__(self, inner: EventLog, claims: Claims, max_record_bytes: int) -> None:
        super().__init__(inner)
        self._claims, self._max_record_bytes = claims, max_record_bytes

    def _out(self, topic: str, key: str, value: bytes, headers: Headers) -> tuple[bytes, Headers]:
        if len(value) <= self._max_record_bytes:
            return value, headers
        if len(value) > MAX_CLAIM_BYTES:
            raise RecordError(f"{topic}: a record may have {MAX_CLAIM_BYTES} bytes, got {len(value)}")
        return b"", headers | {CLAIM: self._claims.put(topic, value)}

    def _back(self, message: Message) -> Message:
        claim = message.headers.get(CLAIM)
        if claim is None:
            return message
        headers = {name: text for name, text in message.headers.items() if name not in (CLAIM, UNUSABLE)}
        try:
            return message._replace(value=self._claims.get(claim), headers=headers)
        except RecordError as exc:
            return message._replace(headers=message.headers | {UNUSABLE: str(exc)})


def keep_sweeping(claims: Claims, stop: Stop) -> None:
    """Sweep now and then hourly, until `stop`; a store that does not answer is swept the next time."""
    while True:
        try:
            claims.sweep(time.time())
        except LogError as exc:
            logger.warning("%s", exc)
        if stop.wait(_SWEEP_EVERY_S):
            return
