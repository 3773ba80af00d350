"""How long a version was served that users no longer like: from traces, and the release that took it back. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from ingest.records.events import Release, ReleaseKind, Trace, TrialState


@dataclass(frozen=True)
class Regret:
    """A version that `alarm` took back. `last_at` is the Unix time of its last token, `None` if it made none."""

    alarm: Release
    last_at: float | None

    def served_s(self, turned_at: float) -> float | None:
        """Seconds from the users' turn to the last token of the bad version."""
        return None if self.last_at is None else max(0.0, self.last_at - turned_at)

    @property
    def after_alarm_s(self) -> float | None:
        """Seconds from the alarm to its last token."""
        return None if self.last_at is None else max(0.0, self.last_at - self.alarm.at)


def find(releases: Iterable[Release], traces: Iterable[Trace]) -> Regret | None:
    """The first version that was taken back, if one was."""
    known = tuple(releases)
    alarm = next((one for one in known if one.state is TrialState.ROLLED_BACK), None)
    if alarm is None or alarm.candidate is None:
        return None
    swaps = [one for one in known if one.kind is ReleaseKind.ANNOUNCED and one.release > alarm.release]
    ends = [end for trace in traces if (end := _last_at(trace, alarm.candidate, swaps)) is not None]
    return Regret(alarm, max(ends, default=None))


def _last_at(trace: Trace, bad: int, swaps: list[Release]) -> float | None:
    """When the bad version made its last token of a reply: at its end, or at the latest when its engine's swap was
    announced, where another version finished it."""
    if all(span.version != bad for span in trace.spans):
        return None
    if trace.spans[-1].version == bad:
        return trace.finished_at
    swap = next((one for one in swaps if trace.engine_id in one.engines), None)
    return trace.finished_at if swap is None else min(trace.finished_at, swap.at)
