"""`onstream erase`: the text of one user made unreadable wherever it lies, and what it had touched until then.

    1. keys       the user's are erased: from here on nothing of theirs opens, on topics, in spools, in the lake, and in
                  every copy of those; processes that run forget the keys within `privacy.key_cache_s`
    2. look       which sessions and traces on the log and in the lake are theirs: that can be told without a key
    3. sessions   the keys of those sessions are erased, under which comments of nobody named were sealed
    4. tell       what became of those traces, and the versions that were trained on them, decided or not: manifests
                  name their traces, fates name the version once it is decided

A crash after any step is made good by erasing again: what is erased stays so, and the headers stay readable. Traces
that have no fate yet get `refused: erased` from the stage that meets them next, but for those that the trainer took
into a version before: erasing again names that once it is published. A version that was trained on them is not changed
by this: it is named, so that whoever decides on it can.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from infra import telemetry
from infra.errors import RecordError
from infra.telemetry import metrics
from ingest.lineage.core import Learnt
from ingest.lineage.reading import learnt
from ingest.log.protocol import EventLog, Message
from ingest.log.topics import FATES, FEEDBACK, TRACES, TRAJECTORIES
from ingest.privacy.keys import KeyStore
from ingest.privacy.pseudonyms import subject_of
from ingest.records import codec
from ingest.records.codec import SEALED_HEADER
from ingest.records.events import Fate
from ingest.records.ids import is_session_key
from ingest.records.named import trace_ids_in
from ingest.store.versions import VersionStore

NO_FATE = "no fate yet"


@dataclass(frozen=True)
class Kept:
    """A trace that something else than the log remembers: its session's key, and how it ended, if that is known."""

    session: str
    trace_id: str
    fate: str | None
    version: int | None


@dataclass
class Touched:
    """What there is of a user. `by_fate` counts traces by how they ended; `versions` have some of them in them.

    `unread` says what of the weight store could not be read, a sentence each: where there is any, a version may be
    missing. `num_keys` are keys that this erasure removed: none, where it had been done before.
    """

    sessions: set[str] = field(default_factory=set)
    traces: set[str] = field(default_factory=set)
    by_fate: Counter[str] = field(default_factory=Counter)
    versions: tuple[Learnt, ...] = ()
    unread: tuple[str, ...] = ()
    num_keys: int = 0


def erase(
    log: EventLog, keys: KeyStore, user: str, store: VersionStore, kept: Callable[[], Iterable[Kept]] = tuple
) -> Touched:
    """Erase the user of that pseudonym. `log` gives records as they lie, sealed; `kept` tells of the lake's.

    Raises:
        StoreError: the keys do not answer; some may be erased.
        LogError, NewerError, LakeError: log or lake cannot be read; the user's keys are erased, and what they touched
            is not told.
    """
    subject = subject_of(user, "")
    found = Touched(num_keys=keys.erase(subject))
    for topic in (TRACES, FEEDBACK, TRAJECTORIES):
        for message in _about(log.replay(topic.name), subject):
            if is_session_key(message.key):
                found.sessions.add(message.key)
            if topic is not FEEDBACK:
                found.traces.update(trace_ids_in(message.key, message.headers))
    told = {one.trace_id: one for one in kept()}
    found.sessions |= {one.session for one in told.values()}
    found.traces |= told.keys()
    for session in sorted(found.sessions):
        found.num_keys += keys.erase(subject_of("", "", session))
    telemetry.count(metrics.KEYS_ERASED, found.num_keys)
    fated = _tell_fates(log, found, {name: (one.fate, one.version) for name, one in told.items()})
    found.versions, found.unread = learnt(fated, log, store)
    return found


def _about(messages: Iterable[Message], subject: str) -> Iterator[Message]:
    """Those sealed under a key of `subject`, among others or alone."""
    for message in messages:
        if any(name.partition("/")[0] == subject for name in message.headers.get(SEALED_HEADER, "").split()):
            yield message


def _tell_fates(
    log: EventLog, found: Touched, ended: dict[str, tuple[str | None, int | None]]
) -> dict[str, int | None]:
    """Each trace with the version that its fate names, if that names one."""
    for message in log.replay(FATES.name):
        if message.key in found.sessions:
            try:
                fate = codec.decode(message.value, message.headers, Fate)
            except RecordError:
                continue
            ended |= dict.fromkeys(fate.trace_ids, (fate.kind.value, fate.version))
    fated: dict[str, int | None] = {}
    for trace_id in found.traces:
        kind, fated[trace_id] = ended.get(trace_id, (None, None))
        found.by_fate[kind or NO_FATE] += 1
    return fated
