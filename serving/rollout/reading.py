"""What the controller hears: versions, rewards and releases, each once and in their order."""

from collections.abc import Callable, Mapping

from infra import telemetry
from ingest.log import reader, topics
from ingest.log.protocol import EventLog, Positions
from ingest.records.events import FEEDBACK_AT, Headers, Release, Reward, Version


class Reading:
    """Follows the three topics; rewards go to `on_reward`, releases to `on_release`, and versions wait here."""

    def __init__(self, log: EventLog, begin: Positions) -> None:
        self.waiting: dict[int, Version] = {}  # versions that no trial was decided for
        self.contexts: dict[int, Headers] = {}  # of versions: the trace context that each was published in
        self.feedback_at: dict[int, float] = {}  # of versions: when the feedback that each learnt from was given
        self.on_reward: Callable[[Reward], None] = lambda _reward: None
        self.on_release: Callable[[Release], None] = lambda _release: None
        self._follower = reader.Follower(log, (topics.VERSIONS, topics.REWARDS, topics.RELEASES), begin)

    def read(self, timeout_s: float) -> int:
        """Take what is new; how many records that were. Raises `LogError` and `NewerError`."""
        records = self._follower.read(timeout_s)
        for record, headers in records:
            if isinstance(record, Reward):
                self.on_reward(record)
            elif isinstance(record, Release):
                self.on_release(record)
            elif isinstance(record, Version):
                self._published(record, headers)
        return len(records)

    def _published(self, version: Version, headers: Headers) -> None:
        self.waiting[version.version] = version
        self.contexts[version.version] = telemetry.context_in(headers)
        if FEEDBACK_AT in version.metrics:
            self.feedback_at[version.version] = version.metrics[FEEDBACK_AT]

    @property
    def positions(self) -> Mapping[tuple[str, int], int]:
        """Where it reads on."""
        return self._follower.positions

    def close(self) -> None:
        self._follower.close()
