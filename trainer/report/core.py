"""What manifests, the release log and fates say together of what the trainer did, as values. Pure."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ingest.records.events import FateKind, Version
from ingest.store.releases import End, Served
from trainer.eligibility import Reason

WASTED = frozenset(
    one.value for one in (Reason.STALE, Reason.REJECTED_WEIGHTS, Reason.DISCARDED, Reason.EXPIRED, Reason.GONE)
)
"""Reasons of turns that could have trained. The others tell of turns that never could."""


@dataclass(frozen=True)
class Ended:
    """`num` traces that ended alike at one time, in Unix seconds."""

    at: float
    kind: FateKind
    reason: str
    num: int


@dataclass(frozen=True)
class VersionTold:
    """A version. `used` are the turns that trained it, `ended` those that ended otherwise while it was made, by reason.

    `spec` and `settings`, a digest, are of its manifest; empty where that has none.
    """

    version: int
    parent: int | None
    at: float
    end: End
    used: int
    ended: Mapping[str, int]
    metrics: Mapping[str, float]
    spec: str = ""
    settings: str = ""

    @property
    def num_wasted(self) -> int:
        """Of those, the ones that could have trained."""
        return sum(num for reason, num in self.ended.items() if reason in WASTED)

    @property
    def num_unfit(self) -> int:
        """The rest of them, held out ones too."""
        return sum(self.ended.values()) - self.num_wasted


@dataclass(frozen=True)
class Report:
    """All versions in their order, and what ended after the last of them was made. `source` is where fates are from.

    `num_used` turns trained, each counted once: what a rejected version was trained on trains another again.
    """

    versions: tuple[VersionTold, ...]
    num_used: int
    since: Mapping[str, int]
    source: str

    @property
    def ended(self) -> Counter[str]:
        """Turns that never train, by reason."""
        total = Counter(self.since)
        for one in self.versions:
            total.update(one.ended)
        return total

    @property
    def num_wasted(self) -> int:
        return sum(num for reason, num in self.ended.items() if reason in WASTED)


def report(manifests: Iterable[Version], served: Served, ended: Iterable[Ended], source: str) -> Report:
    """The whole. A trace that did not train counts for the version that was made next."""
    known = sorted(manifests, key=lambda one: one.version)
    times = [one.created_at for one in known]
    others: list[Counter[str]] = [Counter() for _ in range(len(known) + 1)]
    for one in ended:
        if one.kind is not FateKind.TRAINED:
            others[bisect_left(times, one.at)][one.reason] += one.num
    told = [
        VersionTold(
            version=version.version,
            parent=version.parent,
            at=version.created_at,
            end=served.end(version.version),
            used=int(version.lineage.get("num_turns", len(version.lineage.get("trace_ids", ())))),
            ended=others[place],
            metrics=version.metrics,
            spec=str(version.lineage.get("spec", "")),
            settings=str(version.lineage.get("settings_digest", "")),
        )
        for place, version in enumerate(known)
    ]
    used = {trace_id for version in known for trace_id in version.lineage.get("trace_ids", ())}
    return Report(tuple(told), len(used), others[-1], source)
