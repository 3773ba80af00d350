"""What store, log and lake have of a version or a trace. Content is not opened, but for whether it could be."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from infra.errors import ErasedError, RecordError, StoreError
from ingest.lineage.core import (
    Ancestry,
    Footprint,
    Learnt,
    Seen,
    data_of,
    decisions_about,
    footprint,
    parents_of,
    serving_of,
    spread,
)
from ingest.log.protocol import EventLog
from ingest.log.reader import replay
from ingest.log.topics import FATES, RELEASES, TRACES, VERSIONS
from ingest.records import codec
from ingest.records.events import Fate, Release, Trace, Version, key_of
from ingest.records.named import trace_ids_in
from ingest.store import releases
from ingest.store.versions import VersionStore


@dataclass(frozen=True)
class InLake:
    """A trace's row in the lake: whether its content can be opened, and its fate, if it has one there."""

    is_readable: bool
    fate: Fate | None


def nowhere(_trace_id: str) -> InLake | None:
    """A lake that has nothing."""
    return None


def manifests(log: EventLog, store: VersionStore) -> dict[int, Version]:
    """Every version there is or was: as the store has it or, where it was removed from there, as it was announced.

    Raises:
        LogError: the log is away.
        StoreError: the store is, or a manifest in it cannot be read.
    """
    return _announced(log) | _stored(store)


def _announced(log: EventLog) -> dict[int, Version]:
    return {version.version: version for version in replay(log, VERSIONS, Version)}


def _stored(store: VersionStore) -> dict[int, Version]:
    return {number: store.read(number) for number in store.versions()}


def learnt(
    fated: Mapping[str, int | None], log: EventLog, store: VersionStore
) -> tuple[tuple[Learnt, ...], tuple[str, ...]]:
    """The versions that have some of these traces in them, by number, from manifests that are read one after the other;
    and what of the store could not be read, a sentence each. `fated` is as for `core.spread`.

    Raises:
        LogError: the log is away.
    """
    unread: list[str] = []
    stored = _listed(store, unread)
    found = spread(fated, _each(log, store, stored or (), unread))
    served = releases.read(log)
    told = (
        Learnt(
            number,
            tuple(sorted(found.trained.get(number, ()))),
            served.end(number),
            serving_of(number, served),
            None if stored is None else number in stored,
        )
        for number in found.versions
    )
    return tuple(told), tuple(unread)


def _listed(store: VersionStore, unread: list[str]) -> list[int] | None:
    try:
        return store.versions()
    except StoreError as exc:
        unread.append(f"{exc}; versions are told as they were announced on the log")
        return None


def _each(log: EventLog, store: VersionStore, stored: Iterable[int], unread: list[str]) -> Iterator[Version]:
    """Every manifest there is, as it was announced and as it is stored."""
    announced = set[int]()
    for version in replay(log, VERSIONS, Version):
        announced.add(version.version)
        yield version
    for number in stored:
        try:
            manifest = store.read(number)
        except StoreError as exc:
            rest = "told as it was announced on the log" if number in announced else "what trained it is not known"
            unread.append(f"{exc}; {rest}")
            continue
        yield manifest


def ancestry(version: int, log: EventLog, store: VersionStore) -> Ancestry:
    """A version's story. Raises `StoreError` for a version that there never was, and as `manifests` does."""
    announced, stored = _announced(log), _stored(store)
    known = announced | stored
    if version not in known:
        raise StoreError(f"version {version}: there is none; the store and the log have {_numbers(sorted(known))}")
    entries = list(replay(log, RELEASES, Release))
    parents, ends_early = parents_of(known[version], known)
    line = [one for one in (version, *(parent.version for parent in parents)) if one in stored]
    return Ancestry(
        known[version],
        data_of(known[version]),
        parents,
        ends_early,
        decisions_about(version, entries),
        {one: store.signed(one) for one in line},
        tuple(one for one in line if announced.get(one, stored[one]) != stored[one]),
        serving_of(version, releases.fold(entries)),
    )


def trace(
    trace_id: str, log: EventLog, store: VersionStore, in_lake: Callable[[str], InLake | None] = nowhere
) -> Footprint:
    """What a trace has become part of. Raises as `manifests` does."""
    key = key_of(session_id=None, trace_id=trace_id)
    seen, fate = _on_log(trace_id, key, log), _fate(trace_id, key, log)
    if seen is Seen.NOWHERE or fate is None:
        row = in_lake(trace_id)
        if row is not None:
            fate = fate or row.fate
            if seen is Seen.NOWHERE:
                seen = Seen.READABLE if row.is_readable else Seen.ERASED
    return footprint(trace_id, seen, fate, manifests(log, store).values(), releases.read(log))


def _on_log(trace_id: str, key: str, log: EventLog) -> Seen:
    for message in log.replay(TRACES.name):
        if message.key != key:
            continue
        try:
            if codec.decode(message.value, message.headers, Trace).trace_id == trace_id:
                return Seen.READABLE
        except ErasedError:
            if trace_id in trace_ids_in(message.key, message.headers):
                return Seen.ERASED
        except RecordError:
            continue
    return Seen.NOWHERE


def _fate(trace_id: str, key: str, log: EventLog) -> Fate | None:
    for message in log.replay(FATES.name):
        if message.key != key:
            continue
        try:
            fate = codec.decode(message.value, message.headers, Fate)
        except RecordError:
            continue
        if trace_id in fate.trace_ids:
            return fate
    return None


def _numbers(found: list[int]) -> str:
    return f"{found[0]} to {found[-1]}" if found else "no version"
