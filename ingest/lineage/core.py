"""What manifests, releases and fates say together about a version or a trace, as values."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ingest.records.events import (
    FEEDBACK_FROM,
    FEEDBACK_TO,
    SESSIONS_FROM,
    SESSIONS_TO,
    Fate,
    Release,
    Version,
    key_of,
)
from ingest.store.releases import End, Served, decides
from ingest.store.signing import Signed

Times = tuple[float, float]
"""Of the first and of the last, in Unix seconds."""


class Role(StrEnum):
    """What a version is to users now."""

    STABLE = "stable"
    CANDIDATE = "candidate"
    HOLDBACK = "holdback"
    NONE = "not served"


@dataclass(frozen=True)
class Data:
    """What a version was trained on, and with which `settings` of the trainer, whose digest tells equal ones.

    Manifests of before times or settings were noted have none of them.
    """

    trace_ids: tuple[str, ...]
    spec: str
    sessions_at: Times | None
    feedback_at: Times | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    settings_digest: str = ""

    @property
    def loss(self) -> str:
        """Its kind; empty where that is not noted."""
        return str(self.settings.get("loss", {}).get("kind", ""))

    @property
    def num_sessions(self) -> int:
        return len({key_of(session_id=None, trace_id=trace_id) for trace_id in self.trace_ids})


@dataclass(frozen=True)
class Serving:
    """Where a version serves now, as the release log says: in which role, on which engines."""

    version: int
    role: Role
    engines: tuple[str, ...]


@dataclass(frozen=True)
class Spread:
    """Where traces went: `trained` maps each version that learnt from some to those, `versions` are these versions and
    all that descend from one of them, by number."""

    trained: Mapping[int, Collection[str]]
    versions: tuple[int, ...]


@dataclass(frozen=True)
class Learnt:
    """A version with traces of somebody in it, and what it is now.

    `trace_ids` are those that it was trained on; none where it descends from a version that was. `is_stored` is `None`
    where the store could not be asked.
    """

    version: int
    trace_ids: tuple[str, ...]
    end: End
    serving: Serving
    is_stored: bool | None


@dataclass(frozen=True)
class Ancestry:
    """A version's story. `parents` are nearest first; `ends_early` says why they do not reach a first version.

    `decisions` are the releases about it, oldest first; `signed` is of it and of its parents that the store has;
    `exchanged` are those of them whose manifest is not the one that was announced on the log.
    """

    version: Version
    data: Data
    parents: tuple[Version, ...]
    ends_early: str
    decisions: tuple[Release, ...]
    signed: Mapping[int, Signed]
    exchanged: tuple[int, ...]
    serving: Serving


class Seen(StrEnum):
    """Whether a trace can be read where it lies."""

    READABLE = "readable"
    ERASED = "erased"
    NOWHERE = "neither on the log nor in the lake"


@dataclass(frozen=True)
class Footprint:
    """What a trace has become part of: `trained` are versions that learnt from it, `serving` where they and their
    descendants serve now, by number."""

    trace_id: str
    seen: Seen
    fate: Fate | None
    trained: tuple[int, ...]
    serving: tuple[Serving, ...]

    @property
    def told(self) -> str:
        """The answer in a sentence or two."""
        return " ".join(filter(None, (self._end(), self._erased())))

    def _end(self) -> str:
        if self.trained:
            return f"It trained version {', '.join(map(str, self.trained))}."
        if self.fate is not None:
            return f"It trained no version: it is {self.fate.kind.value.replace('_', ' ')}, {self.fate.reason}."
        if self.seen is Seen.NOWHERE:
            return (
                "Nothing here knows it: no version was trained on it, and it is neither on the log nor in the lake. "
                "It was never captured, or is older than both."
            )
        return "It trained no version, and has no fate yet."

    def _erased(self) -> str:
        if self.seen is not Seen.ERASED:
            return ""
        return "Whom it is of was erased: what they typed cannot be read any more. Versions are not changed by that."


def data_of(version: Version) -> Data:
    """What its manifest says of it."""
    return Data(
        tuple(map(str, version.lineage.get("trace_ids", ()))),
        str(version.lineage.get("spec", "")),
        _times(version, SESSIONS_FROM, SESSIONS_TO),
        _times(version, FEEDBACK_FROM, FEEDBACK_TO),
        version.lineage.get("settings", {}),
        str(version.lineage.get("settings_digest", "")),
    )


def _times(version: Version, first: str, last: str) -> Times | None:
    metrics = version.metrics
    return (metrics[first], metrics[last]) if first in metrics and last in metrics else None


def parents_of(version: Version, manifests: Mapping[int, Version]) -> tuple[tuple[Version, ...], str]:
    """Its parents, nearest first, and why they end before a version that has none: empty where they do not.

    A parent counts only with the digest that its child's manifest gives.
    """
    found: list[Version] = []
    child = version
    while child.parent is not None:
        parent = manifests.get(child.parent)
        if parent is None or parent.version >= child.version:
            return tuple(found), f"version {child.version} names version {child.parent} its parent, which is not there"
        if parent.digest != child.parent_digest:
            return tuple(found), (
                f"version {child.version} was trained from a version {parent.version} with digest "
                f"{(child.parent_digest or '')[:12]}; the one there has {parent.digest[:12]}"
            )
        found.append(parent)
        child = parent
    return tuple(found), ""


def descendants_of(roots: Collection[int], parents: Mapping[int, int | None]) -> tuple[int, ...]:
    """Those versions, and all that descend from one of them, by number. `parents` maps a version to its parent."""
    found = set(roots)
    for number in sorted(parents):
        if parents[number] in found:
            found.add(number)
    return tuple(sorted(found))


def spread(fated: Mapping[str, int | None], manifests: Iterable[Version]) -> Spread:
    """Where traces went. `fated` maps each to the version that its fate names, if that names one.

    A manifest names its traces from its publication on, for as long as it exists; a fate names the version once that is
    decided, for as long as the log and the lake keep it: either will do. Where a version has two manifests both count,
    with the later one's parent. They are taken one after the other, and none is kept.
    """
    trained: defaultdict[int, set[str]] = defaultdict(set)
    parents: dict[int, int | None] = {}
    for trace_id, number in fated.items():
        if number is not None:
            trained[number].add(trace_id)
    for version in manifests:
        parents[version.version] = version.parent
        if used := fated.keys() & data_of(version).trace_ids:
            trained[version.version] |= used
    return Spread(trained, descendants_of(trained, parents))


def decisions_about(version: int, releases: Iterable[Release]) -> tuple[Release, ...]:
    """The releases, in log order, that moved its trial, or made it what is served or not any more.

    Entries of a writer that was fenced, those read twice, and turns of arms that change no share are none.
    """
    found: list[Release] = []
    epoch, last, stable = 0, -1, None
    for release in releases:
        if (release.epoch, release.release) <= (epoch, last):
            continue
        epoch, last = release.epoch, release.release
        if not decides(release):
            continue
        is_moved = release.stable != stable and version in (release.stable, stable)
        if is_moved or version in (release.candidate, release.holdback):
            found.append(release)
        stable = release.stable
    return tuple(found)


def serving_of(version: int, served: Served) -> Serving:
    """Where it serves now."""
    engines = tuple(sorted(engine for engine, number in served.engines.items() if number == version))
    roles = {served.holdback: Role.HOLDBACK, served.on_trial: Role.CANDIDATE, served.stable: Role.STABLE}
    return Serving(version, roles.get(version, Role.NONE), engines)


def footprint(trace_id: str, seen: Seen, fate: Fate | None, manifests: Iterable[Version], served: Served) -> Footprint:
    """What the trace has become part of."""
    found = spread({trace_id: fate.version if fate else None}, manifests)
    serving = tuple(serving_of(number, served) for number in found.versions)
    return Footprint(trace_id, seen, fate, tuple(sorted(found.trained)), serving)
