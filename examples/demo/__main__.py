"""`make demo`: the whole loop on this machine, driven by simulated users, until a version is promoted on live evidence.

    python examples/demo [--agents | --one-engine | --regret] [--sabotage] [--minutes 12] [--users 10] [--plain]

`--agents` lets in agents that go on from their own summaries, with what `agents.env` sets otherwise for them.
`--one-engine` has the arms of a trial take turns on one engine, with what `one_engine.env` sets otherwise for that.
`--regret` goes on after the promotion: users change their mind, and it ends once the watch has taken the version back,
with what `regret.env` sets otherwise for that.
`--sabotage` publishes a damaged version into the same loop and ends with the verdict on it.
"""

import argparse
import asyncio
import os
import shutil
import sys
import time
from pathlib import Path

import httpx
import report
import sabotage
import view
from agents import Agents
from rich.console import Console
from rich.live import Live
from shows import AgentsShow, RegretShow, Show, UsersShow
from users import Users

from infra import cli
from infra.config import Config
from infra.lifecycle import Stop
from infra.supervisor import Supervisor

HERE = Path(__file__).parent
AFTERWARDS_S = 15.0  # users stay a little on the promoted version: the swap happens under load
SETTLE_S = 20.0
LEFT = ("broker", "store", "cache", "index", "keys", "lake", "rollout", "spool", "trainer", "logs", "state.json",
        "resolved.yaml")  # fmt: skip
SHORT_TURNS = (1, 2)  # sessions that fit into a block
FEW_USERS, MANY_USERS = 4, 10
SETTLE_SUMMARIES_S = 90.0  # what summaries are worth is asked of engines, which have been busy until now


class Demo:
    """One run."""

    def __init__(self, config: Config, args: argparse.Namespace, console: Console) -> None:
        self._config, self._args, self._console = config, args, console
        self._stop = Stop.on_signals()
        self._over = False
        self._loop = view.Loop(config)
        say = self._say_plain if args.plain or not console.is_terminal else self._loop.say
        self._say = say
        self.supervisor = Supervisor(config, HERE / "onstream.yaml", say)
        self.people = self._people()

    def _people(self) -> Show:
        router = self._config.serving.router
        given = (f"http://{router.host}:{router.port}/v1", self._config.model.name, self._args.users, 0)
        if self._args.agents:
            return AgentsShow(Agents(*given, lambda: self._over), self._config)
        if self._args.one_engine:
            return UsersShow(Users(*given, lambda: self._over, turns=SHORT_TURNS))
        users = Users(*given, lambda: self._over)
        return RegretShow(users) if self._args.regret else UsersShow(users)

    def _say_plain(self, line: str) -> None:
        self._loop.say(line)
        self._console.print(self._loop.events[-1], markup=False, highlight=False, soft_wrap=True)

    async def run(self) -> None:
        """Start everything, let users in, watch until the end."""
        self.supervisor.start()
        is_live = self._console.is_terminal and not self._args.plain
        live = Live(console=self._console, refresh_per_second=2, screen=True) if is_live else None
        if live:
            live.start()
        try:
            async with httpx.AsyncClient(timeout=2.0) as client:
                await self._watch(client, live)
        finally:
            self.people.stop()
            if live:
                live.stop()

    async def _watch(self, client: httpx.AsyncClient, live: Live | None) -> None:
        begun = time.monotonic()
        crowd: asyncio.Task[None] | None = None
        ends_at: float | None = None
        told = 0.0
        while not self._stop.is_set() and not (crowd and crowd.done()):
            self.supervisor.tick()
            await self._loop.look(client)
            if crowd is None and self.supervisor.is_ready():
                self._say(f"everything is up: {'agents' if self._args.agents else 'users'} come in")
                self.people.start()
                crowd = asyncio.create_task(self.people.crowd.run())
                if self._args.sabotage:
                    damaged = await asyncio.to_thread(sabotage.publish_damaged, self._config)
                    self._say(f"version {damaged.version} is published, damaged")
            if said := self.people.hear(self._loop.rollout):
                self._say(said)
            if ends_at is None and (why := self._verdict(begun)):
                self._say(why)
                ends_at = time.monotonic() + AFTERWARDS_S
            self._over = ends_at is not None and time.monotonic() > ends_at
            share = self.people.crowd.experience.pleased_share(30.0)
            if share is not None and int(time.time()) % 5 == 0:
                self._loop.curve.append(share)
            if live:
                people = self.people.panel(list(self._loop.curve))
                live.update(view.draw(self._loop, self.supervisor, people, self.people.crowd.experience.last_words))
            elif time.monotonic() - told > 15.0:
                told = time.monotonic()
                self._progress()
            await asyncio.sleep(1.0)
        if crowd:
            self._over = True
            await crowd

    def _verdict(self, begun: float) -> str | None:
        """Why it is over, if it is."""
        rollout = self._loop.rollout
        if promoted := rollout.get("promoted"):
            if not self._args.regret:
                return f"version {promoted[-1]} is promoted"
            if rollout["stable"] != promoted[-1]:
                return f"version {promoted[-1]} is taken back: version {rollout['stable']} serves everyone"
        if self._args.sabotage and rollout.get("candidate") == 1 and rollout.get("state") in ("rejected", "expired"):
            return f"the damaged version is {rollout['state']}"
        if time.monotonic() - begun > self._args.minutes * 60:
            missed = "nothing was taken back" if promoted else "no promotion was earned"
            return f"{self._args.minutes:g} minutes are over; {missed}"
        return None

    def _progress(self) -> None:
        users, rollout, trainer = self.people.crowd.experience, self._loop.rollout, self._loop.trainer
        standing = (rollout.get("standing") or {}).get("reason", "")
        self._say(
            f"requests {users.requests} failed {users.failed} {self.people.progress()} | "
            f"trainer {trainer.get('phase', 'starting')} {trainer.get('turns_collected', 0)}/"
            f"{trainer.get('turns_needed', 0)} | {rollout.get('state', 'starting')} {standing}"
        )


def main(argv: list[str]) -> int:
    """The demo's command line."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--agents", action="store_true", help="agents that go on from their own summaries, not users")
    who.add_argument("--one-engine", action="store_true", help="one engine, on which the arms of a trial take turns")
    who.add_argument("--regret", action="store_true", help="users change their mind after the promotion: see it undone")
    parser.add_argument("--sabotage", action="store_true", help="publish a damaged version and see it refused")
    parser.add_argument("--minutes", type=float, help="give up after this (12; 20 with one engine or regret)")
    parser.add_argument("--users", type=int, help=f"users at a time ({MANY_USERS}; with one engine {FEW_USERS})")
    parser.add_argument("--plain", action="store_true", help="lines instead of a live picture")
    parser.add_argument("--keep", action="store_true", help="go on from the state of the run before")
    args = parser.parse_args(argv)
    if args.regret and args.sabotage:
        parser.error("--sabotage ends before there is anything to regret")
    args.minutes = args.minutes or (20.0 if args.one_engine or args.regret else 12.0)
    args.users = args.users or (FEW_USERS if args.one_engine else MANY_USERS)
    for name in ("agents", "one_engine", "regret"):
        if getattr(args, name):
            os.environ.update(overrides((HERE / f"{name}.env").read_text()) | os.environ)
    return cli.guarded(str(HERE / "onstream.yaml"), lambda config: _run(config, args), verbose=False)


def overrides(text: str) -> dict[str, str]:
    """The settings in a file of `NAME=value` lines, as a shell would read them."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def _run(config: Config, args: argparse.Namespace) -> int:
    begun = time.monotonic()
    console = Console()
    demo = Demo(config, args, console)
    try:
        demo.supervisor.claim()  # before anything is removed: another may run here
        if not args.keep:
            forget(config)
        asyncio.run(demo.run())
        settle_s = SETTLE_SUMMARIES_S if args.agents else SETTLE_S
        done = report.make(config, demo.people, time.monotonic() - begun, settle_s)
    finally:
        demo.supervisor.stop()
    report.show(done, demo.people, console)
    print(report.line(done), flush=True)
    return 0


def forget(config: Config) -> None:
    """Remove what an earlier demo left: log, store, lake, checkpoints, and what stages kept of the log, which would be
    taken for what the new one says; never the model, nor the secret."""
    run_dir = Path(config.run_dir)
    for name in LEFT:
        path = run_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
