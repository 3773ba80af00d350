"""Where a report's numbers lie: manifests in the store, decisions on the log, fates in the lake or on the log."""

from collections.abc import Iterator

from infra.config import Config
from ingest.log.protocol import EventLog
from ingest.log.reader import replay
from ingest.log.topics import FATES
from ingest.records.events import Fate, FateKind
from ingest.store import releases
from ingest.store.signing import Trust
from ingest.store.versions import VersionStore
from trainer.report.core import Ended, Report, report


def read(config: Config, log: EventLog) -> Report:
    """The report. Raises `LogError`, `StoreError` and `LakeError` where one of them cannot be read."""
    from ingest.lineage.reading import manifests

    store = VersionStore(config.store.url, trust=Trust.of(config.store.signing))  # tells of what is not signed, too
    ended, source = _ended(config, log)
    return report(manifests(log, store).values(), releases.read(log), ended, source)


def _ended(config: Config, log: EventLog) -> tuple[list[Ended], str]:
    """From the lake, which keeps fates longer, where it has any."""
    from ingest.lake.ended import ended
    from ingest.lake.manifest import Table
    from ingest.lake.reading import Reading, told_plainly
    from ingest.lake.storage import Storage
    from ingest.lake.table import Lake

    if not Lake(Storage(config.ingest.lake.url)).refresh().of(Table.FATES):
        return list(_on_log(log)), "the log, as far back as it goes"
    with told_plainly(config):
        found = ended(Reading.of(config))
        return [Ended(at, FateKind(kind), reason, num) for at, kind, _version, reason, num in found], "the lake"


def _on_log(log: EventLog) -> Iterator[Ended]:
    """Each trace once, at its last fate."""
    last: dict[str, Fate] = {}
    for fate in replay(log, FATES, Fate):
        last.update(dict.fromkeys(fate.trace_ids, fate))
    for fate in last.values():
        yield Ended(fate.at, fate.kind, fate.reason.partition(":")[0], 1)
