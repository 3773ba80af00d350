"""What the release log gives one engine: the version that it starts with and, followed beside it, shall serve."""

import logging
from collections.abc import Callable
from pathlib import Path

from infra.errors import LogError, NewerError, UnreleasedError
from infra.lifecycle import Stop
from ingest.log.protocol import EventLog
from ingest.log.reader import outlast_outages
from ingest.store import releases
from ingest.store.releases import ReleaseFollower, Served
from serving.engine import cache

logger = logging.getLogger(__name__)

_LOOK_S = 1.0


def version_to_serve(log: EventLog, engine_id: str) -> int:
    """The version the release log gives this engine; the stable one where it names no engine.

    Raises:
        UnreleasedError: the log holds no release yet.
    """
    served = releases.read(log)
    if served.stable is None:
        raise UnreleasedError(f"engine {engine_id}: nothing was ever released; it waits for `onstream bootstrap`")
    return served.engines.get(engine_id, served.stable)


def first_version(open_log: Callable[[], EventLog], engine_id: str, folder: Path) -> int:
    """The version to start with: from the log or, while that says none, the one this engine served last.

    Without either it waits: a new installation's engines start before its first version is there.
    """
    found = list[int]()

    def look() -> None:
        try:
            log = open_log()
            try:
                found.append(version_to_serve(log, engine_id))
            finally:
                log.close()
        except LogError as exc:
            version = cache.remembered(folder)
            if version is None:
                raise
            logger.warning("%s; starting with version %d, served last", exc, version)
            found.append(version)

    outlast_outages(Stop(), look)
    return found[0]


class Wanted:
    """The version that engine `engine_id` shall serve: `first`, until the log says otherwise."""

    def __init__(self, engine_id: str, first: int) -> None:
        self._engine_id, self._first = engine_id, first
        self._served = Served()
        self._too_new = ""

    def follow(self, open_log: Callable[[], EventLog], stop: Stop) -> None:
        """Keep up with the log until `stop` is set; through an outage what it said last holds."""

        def follow() -> None:
            log = open_log()
            follower = ReleaseFollower(log, self._served)
            try:
                while not stop.wait(_LOOK_S):
                    self._served = follower.poll(0.0)
            except NewerError as exc:
                logger.error("%s: it cannot be told any more which version it shall serve: %s", self._engine_id, exc)
                self._too_new = str(exc)
            finally:
                follower.close()
                log.close()

        outlast_outages(stop, follow)

    @property
    def version(self) -> int:
        """What it shall serve now."""
        stable = self._served.stable
        return self._first if stable is None else self._served.engines.get(self._engine_id, stable)

    def trouble(self, serving: int) -> str:
        """Why an engine that serves version `serving` is not ready; empty: it is."""
        if self._too_new:
            return self._too_new
        wanted = self.version
        return "" if serving == wanted else f"serves version {serving}, and the release log gives it {wanted}"
