"""Who did what, and when: the release log, entry by entry, as people ask for it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ingest.records.events import Frozen, Mode, Release, ReleaseKind, TrialState
from ingest.store.releases import Served, advance, decided_by, decides

LIMIT = 50

_TRIAL = {
    TrialState.PUBLISHED: "published",
    TrialState.EVALUATING: "trial begun",
    TrialState.SUITES: "suites begun",
    TrialState.REPLAY: "replay begun",
    TrialState.CANARY: "canary begun",
    TrialState.PROMOTED: "promoted",
    TrialState.REJECTED: "rejected",
    TrialState.ROLLED_BACK: "rolled back",
    TrialState.EXPIRED: "expired",
}
_MODE = {Mode.OPEN: "resumed", Mode.PAUSED: "paused", Mode.PINNED: "pinned", Mode.FROZEN: "frozen"}


class Entry(Frozen):
    """One release, with what it changed in a few words and the version it is about.

    `author` is who asked for it, or what decided it.
    """

    what: str
    version: int
    author: str
    release: Release


class History(Frozen):
    """The newest entries that were asked for, oldest of them first; `num` is how many there are of them.

    Releases are numbered without a gap: `last` is the newest of all.
    """

    entries: tuple[Entry, ...]
    num: int
    last: int


@dataclass(frozen=True)
class Filters:
    """Which entries are wanted; none asks nothing. Times are Unix seconds, `[since, until)`.

    Unless `is_all`, confirmations by engines, controllers that took over and turns of arms are left out.
    """

    limit: int = LIMIT
    version: int | None = None
    author: str | None = None
    since: float | None = None
    until: float | None = None
    by_people: bool = False
    is_all: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Filters":
        """From the parameters of a question. Raises `ValueError` for what is none of them."""
        unknown = query.keys() - {"limit", "version", "author", "since", "until", "by_people", "all"}
        if unknown:
            raise ValueError(f"there is no parameter {', '.join(sorted(unknown))}")
        limit = int(query.get("limit", LIMIT))
        if limit < 1:
            raise ValueError(f"limit: must be at least 1, got {limit}")
        return cls(
            limit=limit,
            version=int(query["version"]) if "version" in query else None,
            author=query.get("author"),
            since=float(query["since"]) if "since" in query else None,
            until=float(query["until"]) if "until" in query else None,
            by_people="by_people" in query,
            is_all="all" in query,
        )

    def wants(self, entry: Entry) -> bool:
        one = entry.release
        return (
            (self.is_all or decides(one))
            and self.version in (None, entry.version)
            and self.author in (None, entry.author)
            and (self.since is None or one.at >= self.since)
            and (self.until is None or one.at < self.until)
            and not (self.by_people and not one.author)
        )


def history(releases: Iterable[Release], filters: Filters) -> History:
    """What `filters` want of all `releases`, in log order. Entries of a writer that was fenced off say nothing."""
    served, found = Served(), []
    for release in releases:
        before, served = served, advance(served, release)
        if served is not before:
            entry = Entry(
                what=what(before, release),
                version=_version(before, release),
                author=decided_by(release),
                release=release,
            )
            found += [entry] if filters.wants(entry) else []
    return History(entries=tuple(found[-filters.limit :]), num=len(found), last=served.last)


def what(before: Served, release: Release) -> str:
    """What a release changed, in a few words."""
    if release.kind is ReleaseKind.CLAIM:
        return "controller began"
    if release.kind is ReleaseKind.ANNOUNCED:
        return "engines confirmed"
    if release.kind is ReleaseKind.BLOCK:
        told = "engines swap" if release.block is None else f"block {release.block} begins"
        return told if release.share == before.share else f"{told}, share {release.share:.0%}"
    if before.stable is None:
        return "first release"
    changed = []
    if release.mode is not before.mode:
        changed.append(_MODE[release.mode])
    if release.state is not None and (release.candidate, release.state) != (before.candidate, before.state):
        changed.append(_TRIAL[release.state])
    elif release.stable != before.stable:
        changed.append("rolled back" if release.stable in before.lineage else "stable changed")
    elif before.holdback is not None and release.holdback is None:
        changed.append("watch ended")
    elif release.share != before.share and release.candidate == before.candidate:
        changed.append(f"share {release.share:.0%}")
    return ", ".join(changed) or ("engines changed" if release.engines != dict(before.engines) else "nothing changed")


def _version(before: Served, release: Release) -> int:
    """The candidate that it moved, or else stable."""
    has_moved = (release.candidate, release.state) != (before.candidate, before.state)
    if release.candidate is not None and (has_moved or release.kind is ReleaseKind.TRIAL):
        return release.candidate
    return release.stable
