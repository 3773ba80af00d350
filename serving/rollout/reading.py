"""What the controller hears: versions, rewards and releases, each once and in their order."""

from collections.abc import Callable, Mapping

from infra import telemetry
from ingest.log import reader, topics
from ingest.log.protocol import EventLog, Message, Positions
from ingest.records.events import FEEDBACK_AT, Headers, Release, Reward, Version
from ingest.store.releases import Decision, Served


class Reading:
    """Follows the three topics; rewards go to `on_reward`, releases to `on_release`, and versions wait here."""

    def __init__(self, log: EventLog, begin: Positions) -> None:
        self.waiting: dict[int, Version] = {}  # versions that no trial was decided for
        self.contexts: dict[int, Headers] = {}  # of versions: the trace context that each was published in
        self.feedback_at: dict[int, float] = {}  # of versions: when the feedback that each learnt from was given
        self.on_reward: Callable[[Reward], None] = lambda _reward: None
        self.on_release: Callable[[Release, int], None] = lambda _release, _offset: None
        self._offsets: dict[int, int] = {}  # of versions: where each lies
        self._follower = reader.Follower(log, (topics.VERSIONS, topics.REWARDS, topics.RELEASES), begin)

    def read(self, timeout_s: float) -> int:
        """Take what is new; how many records that were. Raises `LogError` and `NewerError`."""
        records = self._follower.read(timeout_s)
        for record, message in records:
            if isinstance(record, Reward):
                self.on_reward(record)
            elif isinstance(record, Release):
                self.on_release(record, message.offset)
            elif isinstance(record, Version):
                self._published(record, message)
        return len(records)

    def _published(self, version: Version, message: Message) -> None:
        self.waiting[version.version] = version
        self._offsets[version.version] = message.offset
        self.contexts[version.version] = telemetry.context_in(message.headers)
        if FEEDBACK_AT in version.metrics:
            self.feedback_at[version.version] = version.metrics[FEEDBACK_AT]

    @property
    def positions(self) -> Mapping[tuple[str, int], int]:
        """Where it reads on."""
        return self._follower.positions

    def versions_from(self, served: Served) -> int:
        """The offset from which on all versions lie that nothing was decided about."""
        undecided = (number for number in self.waiting if served.decision(number) is Decision.UNDECIDED)
        return min(map(self._offsets.__getitem__, undecided), default=self.positions.get((topics.VERSIONS.name, 0), 0))

    def close(self) -> None:
        self._follower.close()
