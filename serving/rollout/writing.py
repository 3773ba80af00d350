"""The one writer of the release log, and what the log says.

A writer claims the log with an epoch above all that it holds. A release of its own is in force once it was read back
from the log with no newer epoch before it, and nobody else's in its place: two that claim one epoch at the same moment
both find the first of the claims. Until then nothing is done about it, so of two controllers at once at most one acts.
What is known here is the log's replay and nothing else.
"""

import logging
from collections.abc import Callable

from infra import telemetry
from infra.errors import LogError, OnstreamError, UnreleasedError
from infra.lifecycle import Deadline
from infra.telemetry import names
from ingest.log import reader, topics
from ingest.log.protocol import EventLog
from ingest.records.events import Headers, Release, ReleaseKind
from ingest.store import releases
from ingest.store.releases import Known, Mark, Served, mark
from serving.rollout.placement.blocks import Blocks
from serving.rollout.reading import Reading

logger = logging.getLogger(__name__)

_FLUSH_S = 30.0
_LOOK_S = 0.05


class FencedError(OnstreamError, RuntimeError):
    """Another rollout process took over the release log."""


class Writer:
    """`served` is what the log says; `begun` the release with which the state that it is in began; `blocks` are those
    of the candidate, where arms take turns. `known` is what the log said before that candidate: from there all of this
    can be told again."""

    def __init__(self, log: EventLog, reading: Reading, now: Callable[[], float], known: Known | None = None) -> None:
        """With what was `known` before, from where `reading` begins."""
        self._log, self._reading, self._now = log, reading, now
        self.known = known
        self.served = known.served if known else Served()
        self._last: Mark | None = known.after if known else None
        self.begun: Release | None = None
        self.blocks = Blocks()
        self.epoch = 0  # of this writer; none before it claimed one
        self._sent: Release | None = None  # until it was read back
        reading.on_release = self._take

    @property
    def stable(self) -> int:
        """The version that serves users, once something was released."""
        assert self.served.stable is not None
        return self.served.stable

    def claim(self, timeout_s: float) -> None:
        """Replay the log, then take it over.

        Raises:
            UnreleasedError: nothing was ever released.
        """
        head = releases.read(self._log, self.known)
        if head.stable is None:
            raise UnreleasedError("rollout: nothing was ever released; it waits for `onstream bootstrap`")
        while (self.served.epoch, self.served.last) < (head.epoch, head.last):
            self._reading.read(timeout_s)
        self.epoch = self.served.epoch + 1
        self.write(ReleaseKind.CLAIM, f"the rollout controller started, epoch {self.epoch}")

    def write(self, kind: ReleaseKind, reason: str, **what: object) -> Release:
        """Append a release, and take it from the log: from here it may be acted on.

        Raises:
            FencedError: another writer claimed the log before.
            LogError: it did not come back.
        """
        fields: dict[str, object] = {"epoch": self.epoch, "stable": self.stable, "mode": self.served.mode, **what}
        release = Release.model_validate(
            {"release": self.served.last + 1, "kind": kind, "reason": reason, "at": self._now(), **fields}
        )
        self._sent = release
        with telemetry.span(names.DECIDE, _about(release), parent=self._context_of(release)):
            reader.send(self._log, topics.RELEASES, "", release)
            self._log.flush(_FLUSH_S)
        self._read_back(release)
        logger.info("release %d: %s", release.release, reason)
        return release

    def _read_back(self, release: Release) -> None:
        deadline = Deadline.after(_FLUSH_S)
        while (self.served.epoch, self.served.last) < (release.epoch, release.release):
            if deadline.passed():
                raise LogError(f"release {release.release}: written, but not read back within {_FLUSH_S:.0f} s")
            self._reading.read(_LOOK_S)
        self._sent = None

    def _take(self, release: Release, offset: int) -> None:
        if self.epoch and release.epoch > self.epoch:
            raise FencedError(f"epoch {release.epoch} writes releases now; this process had {self.epoch}")
        sent = self._sent
        if sent and (release.epoch, release.release) == (sent.epoch, sent.release) and _words(release) != _words(sent):
            raise FencedError(f"epoch {release.epoch} was claimed by another process at the same time")
        before = self.served
        self.served = releases.advance(before, release)
        if self.served is not before:
            self.blocks.take(self.served, release)
        if (self.served.candidate, self.served.state) != (before.candidate, before.state):
            self.begun = release
        if self.served.candidate != before.candidate and self._last is not None:
            self.known = Known(served=before, offset=offset, after=self._last)
        self._last = mark(release)

    def _context_of(self, release: Release) -> Headers | None:
        """The trace of the version that a release is about; inside a span, that."""
        about = set(release.engines.values()) if release.kind is ReleaseKind.ANNOUNCED else {release.candidate}
        version = about.pop() if len(about) == 1 else None
        if version is None or telemetry.current().is_recording():
            return None
        return self._reading.contexts.get(version)


def _words(release: Release) -> tuple[float, str, str]:
    """What tells a release from another writer's of the same epoch and number: when, and what for."""
    return release.at, release.kind, release.reason


def _about(release: Release) -> names.Told:
    """A release, as its span tells it."""
    about: names.Told = {names.RELEASE: release.release, names.RELEASE_KIND: release.kind.value}
    if release.candidate is not None and release.state is not None:
        about |= {names.VERSION: release.candidate, names.STATE: release.state.value}
    return about
