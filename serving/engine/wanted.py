"""What the release log gives one engine, followed beside it: is it the version that it serves?"""

import logging
from collections.abc import Callable

from infra.errors import NewerError
from infra.lifecycle import Stop
from ingest.log.protocol import EventLog
from ingest.log.reader import outlast_outages
from ingest.store.releases import ReleaseFollower, Served

logger = logging.getLogger(__name__)

_LOOK_S = 1.0


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
