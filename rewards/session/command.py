"""The command: find a session on the log, and print it for people or as one JSON object."""

import argparse
import sys
import time

from infra import broker, cli
from infra.config import Config
from ingest.log.protocol import EventLog
from ingest.records.events import Trajectory
from ingest.sessions.history import Compaction
from rewards.session import find, show, view
from rewards.summary.kept import inventory


def main(argv: list[str]) -> int:
    """The command. Exit status 1: no such session is on the log."""
    parser = argparse.ArgumentParser(prog="onstream session", description="One session, as people read it.")
    parser.add_argument(
        "id", metavar="ID", help="its name, as its client gave it; its key; a trace's or completion's id"
    )
    cli.add_config(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--full", action="store_true", help="do not shorten texts")
    args = parser.parse_args(argv)

    def run(config: Config) -> int:
        from ingest.log.connect import connect

        broker.require_running(config.log)
        log = connect(config, client_id="session")
        try:
            found = look_up(log, args.id, config, time.time(), findings)
        finally:
            log.close()
        if found is None:
            print(f"onstream: session {args.id!r}: no trace and no trajectory on the log is of it", file=sys.stderr)
            return 1
        print(found.model_dump_json()) if args.json else to_screen(found, is_full=args.full)
        return 0

    return cli.guarded(args.config, run, verbose=False)


def look_up(
    log: EventLog, asked: str, config: Config, now: float, look: view.Find = view.no_findings
) -> view.SessionView | None:
    """The view of everything that `asked` names, or none where that is nothing. Raises `LogError`."""
    tenants = sorted(set(config.serving.router.api_keys.values()))
    found = find.find(log, asked, tenants, config.ingest, now)
    last = {trajectory.session_id: trajectory.trajectory_id for trajectory in found.closed}

    def seen(trajectory: Trajectory, is_open: bool) -> view.TrajectoryView:
        turns = {turn.trace_id for turn in trajectory.turns}
        is_last = last.get(trajectory.session_id) == trajectory.trajectory_id
        late = [item for item in found.late if (item.trace_id in turns if item.trace_id else is_last)]
        rewards = [reward for reward in found.rewards if reward.trajectory_id == trajectory.trajectory_id]
        subs = found.sub_sessions.get(trajectory.session_id, set())
        return view.build(trajectory, rewards, late, subs, look, is_open=is_open)

    seen_all = [seen(one, False) for one in found.closed] + [seen(one, True) for one in found.still_open]
    return view.SessionView(asked=asked, trajectories=tuple(seen_all)) if seen_all else None


def findings(trajectory: Trajectory, cut: Compaction) -> view.Findings:
    """What a summary kept, lost and has wrong, as `recall` and `faithfulness` see it."""
    found = inventory(trajectory, cut)
    return view.Findings(kept=found.kept, lost=found.lost, wrong=found.wrong)


def to_screen(found: view.SessionView, is_full: bool) -> None:
    """Print for people: as wide as the terminal, and no wider than reads well in a pipe."""
    console = cli.console(width=100)
    for part in show.session(found, is_full):
        console.print(part)
