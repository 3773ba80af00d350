"""The lake stage: trajectories, feedback, rewards, fates and releases become rows of the lake.

The commit order:

    1. read        records become rows in memory; those that cannot are appended to the dead-letter topics
    2. letters     dead letters are durable
    3. files       a data file for each table, day and tenant among the rows
    4. commit      `_commits/<n>.json` names the files and the next position of every partition that was read
    5. checkpoint  now and then, so that a reader opens few commits
    6. follow      the group's offsets on the log follow, for those who look at its lag

The positions in the lake are the only ones. They move with the rows, in step 4, and whoever is given a partition seeks
to the lake's position of it, whatever the group's offset says. So every record is in the lake once:

    before 4       the rows are not in the lake: they are read again; dead letters and files of before are of no use
    after 4        the rows are in the lake, and so are the positions behind them; the group's offsets follow when its
                   partitions are given out again

A batch takes for granted that nobody else has moved its partitions. Where that is not so the commit is refused, and the
batch is dropped: what it held is another process's, or is read again.

Every record means every message: one that its stage appended twice lies on its topic twice, and so in the lake. Readers
see it once, by its id, and compaction drops what they do not see.

One process, the one that reads the first partition of `trajectories`, joins small files, drops old days and sweeps.
"""

import logging
import time
from collections.abc import Callable

from infra import telemetry
from infra.config import Config
from infra.errors import RecordError
from infra.lifecycle import Stop
from infra.telemetry import metrics
from ingest.lake import compaction
from ingest.lake.batch import Batch
from ingest.lake.content import Vault
from ingest.lake.manifest import Change, Where
from ingest.lake.rows import rows_of
from ingest.lake.steps import Step, Watch, unwatched
from ingest.lake.table import Lake
from ingest.log import letters
from ingest.log.letters import Failure
from ingest.log.protocol import EventLog, Message
from ingest.log.reader import Reader, place
from ingest.log.topics import READERS, TRAJECTORIES
from ingest.records.codec import SUBJECT_HEADER
from ingest.records.events import Record

logger = logging.getLogger(__name__)

GROUP = "lake"
TOPICS = READERS[GROUP]
POLL_S = 0.5
MAX_BYTES = 64 << 20  # of contents in memory before they are written
JOIN_EVERY_S = 60.0
SWEEP_EVERY_S = 3600.0
_LEADS = (TRAJECTORIES.name, 0)


class Writer:
    """The stage's state between two polls. Build a new one after any `LogError` or `LakeError`: that is a restart."""

    def __init__(
        self,
        log: EventLog,
        lake: Lake,
        vault: Vault,
        config: Config,
        clock: Callable[[], float] = time.time,
        watch: Watch = unwatched,
        max_messages: int = 500,
    ) -> None:
        self._max_messages = max_messages
        self._log, self._lake, self._vault, self._clock, self._watch = log, lake, vault, clock, watch
        self._own, self._timeout_s = config.ingest.lake, config.log.timeout_s
        self._reader = Reader(log, TOPICS, GROUP)
        self._assigned: frozenset[Where] = frozenset()
        self._since: dict[Where, int | None] = {}  # the lake's positions, of the partitions read here
        self._next: dict[Where, int] = {}  # what follows the batch
        self._sought: set[tuple[Where, int]] = set()  # places that were sought: what comes from there comes next
        self._batch = Batch()
        self._begun_at: float | None = None  # when the batch's first record was read
        self._join_at = self._sweep_at = clock() + JOIN_EVERY_S

    def step(self, timeout_s: float = POLL_S) -> None:
        """Poll once; commit, and tidy up, when it is time to."""
        self.read(timeout_s)
        if self._is_due():
            self.flush()
        if _LEADS in self._assigned:
            self.tidy()

    def read(self, timeout_s: float = POLL_S) -> int:
        """1: poll, and make rows of what came. Returns how many messages there were."""
        polled = self._reader.poll(timeout_s, self._max_messages)
        if self._reader.subscription.assignment() != self._assigned:
            self._begin_anew()
            return len(polled)  # they are before or behind the position that was sought, and come again if need be
        for message, record in polled:
            where = (message.topic, message.partition)
            if message.offset < self._next[where]:
                continue  # the group's offset was behind the lake's position
            if message.offset > self._next[where] and (where, self._next[where]) not in self._sought:
                self._begin_anew(where)
                return len(polled)
            self._next[where] = message.offset + 1
            if self._begun_at is None:
                self._begun_at = self._clock()
            if isinstance(record, Record):  # an erased one has nothing left to keep
                self._take(record, message)
        if polled:
            self._watch(Step.READ)
        return len(polled)

    def _take(self, record: Record, message: Message) -> None:
        subject = message.headers.get(SUBJECT_HEADER, "")
        try:
            self._batch.add(tuple(rows_of(record, message.partition, message.offset, self._vault, subject)))
        except RecordError as exc:
            logger.error("%s: dead-lettered: %s", place(message), exc)
            letters.bury(self._log, GROUP, message, Failure.UNREADABLE, str(exc))

    def _begin_anew(self, jumped: Where | None = None) -> None:
        """Drop the batch, and go on where the lake says, in all partitions that are read here now.

        A partition that `jumped` gave a later record than the next one. It may be that the next ones are not on their
        topic any more; or the group, formed anew, put this reader at an offset that is ahead of the lake. A second
        look at the same place tells.
        """
        self._sought = {(jumped, self._next[jumped])} if jumped else set()
        self._assigned = self._reader.subscription.assignment()
        held = self._lake.refresh().positions
        self._since = {where: held.get(where) for where in self._assigned}
        self._next = {where: position or 0 for where, position in self._since.items()}
        self._sought |= set(self._next.items())
        self._batch, self._begun_at = Batch(), None
        self._reader.subscription.seek(self._next)
        self._reader.subscription.commit({where: at for where, at in self._since.items() if at is not None})
        logger.info("lake: reading %d partitions, from where the lake's commits end", len(self._assigned))

    def _is_due(self) -> bool:
        if self._begun_at is None:
            return False
        is_full = self._batch.num_rows >= self._own.max_rows or self._batch.num_bytes >= MAX_BYTES
        return is_full or self._clock() - self._begun_at >= self._own.flush_s

    def flush(self) -> None:
        """2 to 6: bring the batch into the lake."""
        if self._begun_at is None:
            return
        begun, batch = time.monotonic(), self._batch
        self._log.flush(self._timeout_s)
        self._watch(Step.LETTERED)
        files = batch.write(self._lake)
        self._watch(Step.FILES)
        moved = {where: after for where, after in self._next.items() if after != (self._since[where] or 0)}
        change = Change(files, (), {where: self._since[where] for where in moved}, moved)
        snapshot = self._lake.commit(change)
        if snapshot is None:
            logger.warning("lake: %d rows are not written: their partitions were moved on elsewhere", batch.num_rows)
            self._begin_anew()
            return
        self._since |= moved
        self._batch, self._begun_at = Batch(), None
        self._reader.subscription.commit(moved)
        self._watch(Step.FOLLOWED)
        telemetry.count(metrics.LAKE_ROWS, batch.num_rows)
        telemetry.record(metrics.LAKE_COMMIT, time.monotonic() - begun)
        logger.info("lake: commit %d, %d rows in %d files", snapshot.number, batch.num_rows, len(files))

    def tidy(self) -> None:
        """Join some small files, or sweep, where it is time to: one thing between two polls, as reading must go on."""
        now = self._clock()
        if now >= self._join_at:
            jobs = compaction.plan(self._lake.refresh().files.values(), now)
            if jobs:
                compaction.join(self._lake, jobs[0])
            if len(jobs) < 2:
                self._join_at = now + JOIN_EVERY_S
        elif now >= self._sweep_at:
            self._sweep_at = now + SWEEP_EVERY_S
            if self._own.retention_days is not None:
                compaction.expire(self._lake, now, self._own.retention_days)
            self._lake.sweep()

    def close(self) -> None:
        """Leave the group. What was not committed is read again."""
        self._reader.close()


def run(log: EventLog, lake: Lake, vault: Vault, config: Config, stop: Stop) -> None:
    """Write until `stop` is set, and then what is in memory. Raises `LogError` or `LakeError`; call again to go on."""
    telemetry.count(metrics.LAKE_ROWS, 0)  # who has committed nothing says so, too
    stage = Writer(log, lake, vault, config)
    try:
        while not stop.is_set():
            stage.step()
            stop.pulse.beat()
        stage.flush()
    finally:
        stage.close()
