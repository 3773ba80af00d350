"""What a demo run showed, from the log: nothing here is remembered, everything is read back."""

import json
import statistics
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from shows import Show

from infra.config import Config
from ingest.audit.account import Account, Limits
from ingest.audit.command import settle
from ingest.log import reader, topics
from ingest.log.connect import connect
from ingest.records.events import Feedback, Release, ReleaseKind, TrialState, session_key
from ingest.store.versions import VersionStore

TERMINAL = (TrialState.PROMOTED, TrialState.REJECTED, TrialState.EXPIRED, TrialState.ROLLED_BACK)


@dataclass(frozen=True)
class Report:
    """The run's outcome. `line` is the DEMO line's object."""

    verdicts: tuple[Release, ...]
    account: Account
    line: dict[str, Any]


def make(config: Config, people: Show, wall_s: float, settle_s: float) -> Report:
    """Read the log and count."""
    log = connect(config, client_id="report")
    try:
        releases = list(reader.replay(log, topics.RELEASES, Release))
        account = settle(log, Limits.of(config), settle_s)
        feedback_at = {_about(given): given.at for given in reader.replay(log, topics.FEEDBACK, Feedback)}
        people.read(log)
    finally:
        log.close()
    users = people.crowd.experience
    steps = (r for r in releases if r.kind is ReleaseKind.TRIAL and r.state in TERMINAL)
    firsts = {(r.candidate, r.state): r for r in reversed(tuple(steps))}  # a watch that ends is no second promotion
    verdicts = tuple(sorted(firsts.values(), key=lambda r: r.release))
    promoted = [r for r in verdicts if r.state is TrialState.PROMOTED]
    swaps = [r.numbers["pause_s"] for r in releases if r.kind is ReleaseKind.ANNOUNCED]
    gates = [r for r in verdicts if r.state is not TrialState.ROLLED_BACK]  # that is a watch's
    last = gates[-1].numbers if gates else {}
    line = {
        "promoted": len(promoted),
        "rejected": sum(r.state is TrialState.REJECTED for r in verdicts),
        "requests": users.requests,
        "failed_requests": users.failed,
        "questions": len(users.asked),
        "reward_stable": round(last["reward.stable"], 4) if "reward.stable" in last else None,
        "reward_candidate": round(last["reward.candidate"], 4) if "reward.candidate" in last else None,
        "log_e": round(last["log_e.reward"], 3) if "log_e.reward" in last else None,
        "log_threshold": round(last["log_threshold"], 3) if "log_threshold" in last else None,
        "swap_gap_ms_max": round(max(swaps) * 1000) if swaps else None,
        "stream_gap_ms_max": round(users.longest_gap_s * 1000),
        "feedback_to_serving_s": _feedback_to_serving(config, promoted, releases, feedback_at),
        "traces": account.num_traces,
        "unexplained_traces": account.unexplained.num + account.conflicts.num,
        "wall_s": round(wall_s),
        **people.line(),
    }
    return Report(verdicts, account, line)


def _about(given: Feedback) -> str:
    """The trace that feedback is about, or what all traces of its session begin with."""
    return given.trace_id or session_key(given.session_id or "")


def _feedback_to_serving(
    config: Config, promoted: list[Release], releases: list[Release], feedback_at: dict[str, float]
) -> float | None:
    """Median seconds from feedback in the first promoted batch to all engines serving what it taught."""
    if not promoted:
        return None
    version = promoted[0].stable
    traces = VersionStore(config.store.url).read(version).lineage["trace_ids"]
    abouts = [about for trace in traces for about in (trace, trace.partition("-")[0]) if about in feedback_at]
    given = [feedback_at[about] for about in abouts]
    served = [r.at for r in releases if r.kind is ReleaseKind.ANNOUNCED and version in r.engines.values()]
    return round(max(served) - statistics.median(given), 1) if given and served else None


def show(report: Report, people: Show, console: Console) -> None:
    """For people: what was decided and why, how users fared, how every trace ended."""
    users = people.crowd.experience
    table = Table("", "", title="what happened", show_header=False)
    for release in report.verdicts:
        table.add_row(f"version {release.candidate}", f"[bold]{release.state}[/]: {release.reason}")
    if not report.verdicts:
        table.add_row("no trial ended", "nothing was promoted, and nothing is claimed")
    table.add_row("requests", f"{users.requests} in {users.sessions} sessions, {users.failed} failed")
    for name, what in people.rows():
        table.add_row(name, what)
    if users.latencies_s:
        quantiles = statistics.quantiles(users.latencies_s, n=20) if len(users.latencies_s) > 1 else users.latencies_s
        table.add_row("latency", f"median {statistics.median(users.latencies_s):.1f} s, p95 {quantiles[-1]:.1f} s")
    for (kind, reason), num in sorted(report.account.by_reason.items()):
        table.add_row(f"traces {kind}", f"{num}: {reason}")
    for where, num in sorted(report.account.in_flight.items()):
        table.add_row("traces in flight", f"{num}: {where}")
    console.print(table)
    for failure in users.failures[:5]:
        console.print(f"failed request: {failure}", markup=False)
    for line in (*report.account.unexplained.names[:5], *report.account.conflicts.names[:5]):
        console.print(f"unexplained: {line}", markup=False)


def line(report: Report) -> str:
    """The last line of a demo."""
    return f"DEMO {json.dumps(report.line)}"
