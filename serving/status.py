"""`onstream status`: one screen of what runs, which version serves, what waits, and how the trial stands."""

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.table import Table

from infra import broker, cli
from infra.config import Config
from infra.errors import LogError, StartError
from ingest.log import letters, redrive, topics
from ingest.log.letters import Failure
from ingest.log.protocol import EventLog
from ingest.records.events import Mode, Version
from ingest.sessions.assemble import GROUP
from ingest.store import releases
from ingest.store.versions import VersionStore


def main(argv: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="onstream status", description="What runs, serves, waits and is on trial.")
    cli.add_config(parser)
    args = parser.parse_args(argv)
    return cli.guarded(args.config, lambda config: Console().print(screen(config)), verbose=False)


def screen(config: Config) -> RenderableType:
    """Everything; what cannot be asked says so in its place."""
    return Columns(
        [_processes(config), *_from_log(config), _router(config), _trainer(config), _trial(config)], padding=(0, 2)
    )


def _processes(config: Config) -> Table:
    table = Table("process", "state", "pid", "restarts", "up for", title="processes of this machine")
    state = Path(config.run_dir) / "state.json"
    held: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"processes": {}}
    for name, process in held["processes"].items():
        is_alive = process["pid"] is not None and psutil.pid_exists(process["pid"])
        told = process["state"] if is_alive or process["state"] == "stopped" else "dead"
        age = f"{time.time() - process['started_at']:.0f} s" if is_alive else "-"
        table.add_row(name, told, str(process["pid"]), str(process["restarts"]), age)
    if not held["processes"]:
        table.add_row("none started by `onstream up`", "", "", "", "")
    return table


def _from_log(config: Config) -> list[RenderableType]:
    from ingest.log.connect import connect

    log = connect(config, client_id="status")
    try:
        broker.require_running(config.log)
        served = releases.read(log)
        stages = {name: read for name, read in topics.READERS.items() if name != "lake" or config.ingest.lake.enabled}
        lags = {stage: log.lag(stage, [topic.name for topic in read]) for stage, read in stages.items()}
        lost = lost_feedback(log)
    except (LogError, StartError) as exc:
        return [f"[red]{exc}[/]"]
    finally:
        log.close()
    serving = Table("engine", "serves", "arm", title=f"stable is version {served.stable}")
    for engine, version in served.engines.items():
        on_trial = version == served.on_trial
        serving.add_row(engine, f"version {version}", "candidate" if on_trial else "stable")
    lag = Table("stage", "topic", "messages", title="unread, or in open sessions and batches")
    for stage, behind in lags.items():
        for topic, num in behind.items():
            lag.add_row(stage, topic, str(num))
    feedback = Table("feedback", "messages", title="feedback that no session has")
    for what, num in lost.items():
        feedback.add_row(what, str(num))
    return [serving, lag, feedback]


def lost_feedback(log: EventLog) -> dict[str, int]:
    """How much feedback was dead-lettered and not put back, or came late, as far back as that is kept."""
    source = topics.dead_letters(topics.FEEDBACK.name, GROUP)
    put_back = redrive.done(log, source)
    dead = Counter(failure for origin, failure in letters.read(log, source).items() if origin not in put_back)
    return {
        "about nothing known": dead[Failure.UNCLAIMED],
        "late": len(letters.read(log, topics.late_letters(topics.FEEDBACK.name, GROUP))),
        "unreadable": dead[Failure.UNREADABLE],
    }


def _router(config: Config) -> RenderableType:
    own = config.serving.router
    state = _ask(f"http://{own.host}:{own.port}/status")
    if state is None:
        return f"[red]the router does not answer on {own.host}:{own.port}[/]"
    table = Table("counter", "value", title="router")
    for name, value in sorted(state["counts"].items()):
        table.add_row(name, str(value))
    table.add_row("follows release", str(state.get("release", "-")))
    for name, engine in state["engines"].items():
        table.add_row(name, "up" if engine["up"] else "down")
    table.add_row("spooled bytes", str(state["spool_bytes"]))
    table.add_row("dropped records", str(state["dropped"]))
    return table


def _trainer(config: Config) -> RenderableType:
    own = config.trainer
    state = _ask(f"http://{own.host}:{own.port}/status")
    if state is None:
        return f"[red]the trainer does not answer on {own.host}:{own.port}[/]"
    table = Table("", "", title=f"trainer: {state['phase']}", show_header=False)
    if state.get("waits_for"):
        table.add_row("waits for", f"[bold]{state['waits_for']}[/]")
    if "turns_collected" not in state:
        return table
    if state.get("mode") == Mode.FROZEN:
        table.add_row("mode", "[bold]frozen: it neither learns nor publishes[/]")
    table.add_row("next update", f"{state['turns_collected']} of {state['turns_needed']} scored turns")
    if "turns_in_making" in state:
        closed = f", and takes no more: {state['closed']}" if state.get("closed") else ""
        table.add_row("version in the making", f"{state['turns_in_making']} turns{closed}")
    table.add_row("updates so far", str(state["step"]))
    table.add_row("follows release", str(state.get("release", "-")))
    if state["mean_reward"] is not None:
        table.add_row("reward of its last batch", f"{state['mean_reward']:.3f}")
    return table


def _trial(config: Config) -> RenderableType:
    own = config.serving.rollout
    state = _ask(f"http://{own.host}:{own.port}/status")
    if state is None:
        return f"[red]the rollout does not answer on {own.host}:{own.port}[/]"
    table = Table("", "", title=f"trial: {state['state']}", show_header=False)
    if state.get("candidate") is not None:
        table.add_row("candidate", f"version {state['candidate']}")
        table.add_row("share of sessions", f"{state['share']:.0%}")
    standing = state.get("standing")
    if state.get("mode", Mode.OPEN) != Mode.OPEN:
        table.add_row("mode", f"[bold]{state['mode']}[/]")
    if state.get("holdback") is not None:
        table.add_row("held back, under watch", f"version {state['holdback']}")
    if standing:
        table.add_row("standing", standing["reason"])
        for name, value in sorted(standing["numbers"].items()):
            table.add_row(name, f"{value:.3f}")
    for line in state.get("disagreement", ()):
        table.add_row("[red]disagreement[/]", line)
    table.add_row("promoted so far", ", ".join(map(str, state.get("promoted", []))) or "none")
    return table


def _ask(url: str) -> Mapping[str, Any] | None:
    try:
        body: Mapping[str, Any] = httpx.get(url, timeout=2.0).raise_for_status().json()
    except httpx.HTTPError:
        return None
    return body


def versions(argv: list[str]) -> int:
    """`onstream versions`: what is in the store, with lineage."""
    parser = argparse.ArgumentParser(prog="onstream versions", description="Versions in the weight store.")
    cli.add_config(parser)
    args = parser.parse_args(argv)

    def run(config: Config) -> None:
        table = Table("version", "digest", "parent", "weights", "turns", "reward", "one user has", "published")
        store = VersionStore(config.store.url)
        for number in store.versions():
            held = store.read(number)
            reward = held.metrics.get("mean_reward")
            table.add_row(
                str(number),
                held.digest[:12],
                "-" if held.parent is None else str(held.parent),
                _weights(held),
                str(held.lineage.get("num_turns", "-")),
                "-" if reward is None else f"{reward:.3f}",
                _largest_user(held.metrics),
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(held.created_at)),
            )
        cli.console().print(table)

    return cli.guarded(args.config, run, verbose=False)


def _weights(version: Version) -> str:
    """What its files take, and of what they are a change."""
    size = f"{sum(file.bytes for file in version.files) / 1e6:,.1f} MB"
    return size if version.base is None else f"{size} over {version.base}"


def _largest_user(metrics: Mapping[str, float]) -> str:
    """The largest share that one user has of a version's batch, and the bound that held."""
    if "fair.user_share" not in metrics:
        return "-"
    return f"{metrics['fair.user_share']:.1%} of at most {metrics['fair.user_cap']:.1%}"
