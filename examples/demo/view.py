"""The demo's live picture: who asks what, what is trained, which version serves, and the evidence on a trial."""

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from infra.config import Config
from infra.process import ProcessState
from infra.supervisor import Supervisor

_SPARKS = "▁▂▃▄▅▆▇█"


@dataclass
class Loop:
    """What the system says of itself, asked once a second."""

    config: Config
    rollout: dict[str, Any] = field(default_factory=dict)
    router: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    events: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    curve: deque[float] = field(default_factory=lambda: deque(maxlen=60))
    begun: float = field(default_factory=time.time)

    def say(self, line: str) -> None:
        self.events.append(f"{time.time() - self.begun:5.0f}s  {line}")

    async def look(self, client: httpx.AsyncClient) -> None:
        """Ask rollout, router and trainer; what does not answer keeps its last state."""
        serving = self.config.serving
        before = self.rollout
        self.rollout = await _ask(client, f"http://{serving.rollout.host}:{serving.rollout.port}/status", before)
        self.router = await _ask(client, f"http://{serving.router.host}:{serving.router.port}/status", self.router)
        own = self.config.trainer
        self.trainer = await _ask(client, f"http://{own.host}:{own.port}/status", self.trainer)
        self._notice(before)

    def _notice(self, before: dict[str, Any]) -> None:
        key = ("state", "candidate", "share")
        if [before.get(k) for k in key] != [self.rollout.get(k) for k in key] and self.rollout.get("candidate"):
            share = f" with {self.rollout['share']:.0%} of sessions" if self.rollout.get("share") else ""
            self.say(f"version {self.rollout['candidate']}: {self.rollout['state']}{share}")


async def _ask(client: httpx.AsyncClient, url: str, before: dict[str, Any]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = (await client.get(url)).raise_for_status().json()
    except httpx.HTTPError:
        return before
    return answer


def sparkline(values: list[float]) -> str:
    """Values in [0, 1] as a line of blocks."""
    return "".join(_SPARKS[min(len(_SPARKS) - 1, int(value * len(_SPARKS)))] for value in values)


def draw(loop: Loop, supervisor: Supervisor, people: Panel, last_words: list[str]) -> RenderableType:
    """One frame; `people` is the panel of those who come in, `last_words` what they heard."""
    layout = Layout()
    layout.split_column(Layout(name="top", size=11), Layout(name="middle", size=9), Layout(name="bottom"))
    layout["top"].split_row(Layout(people), Layout(_processes(supervisor)))
    layout["middle"].split_row(Layout(_trainer(loop)), Layout(_trial(loop)))
    layout["bottom"].split_row(
        Layout(Panel(Text("\n".join(last_words[-4:]), overflow="ellipsis"), title="heard")),
        Layout(Panel(Text("\n".join(list(loop.events)[-8:])), title="what happened")),
    )
    return layout


def percent(value: float | None) -> str:
    """A share, or that there is none yet."""
    return "-" if value is None else f"{value:.0%}"


def grid(*rows: tuple[str, RenderableType]) -> Table:
    """Names and values in two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right")
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    return table


def _processes(supervisor: Supervisor) -> Panel:
    table = Table.grid(padding=(0, 1))
    for name, process in supervisor.processes.items():
        mark = "[green]●[/]" if process.state is ProcessState.READY else "[yellow]◌[/]"
        again = f"restarted {process.restarts}x" if process.restarts else ""
        table.add_row(mark, name, f"[dim]{process.state}[/]", f"[yellow]{again}[/]")
    return Panel(table, title="processes")


def _trainer(loop: Loop) -> Panel:
    have, need = loop.trainer.get("turns_collected", 0), loop.trainer.get("turns_needed", 1)
    reward = loop.trainer.get("mean_reward")
    return Panel(
        grid(
            ("phase", str(loop.trainer.get("phase", "starting"))),
            ("scored turns", Group(Text(f"{have} of {need}"), ProgressBar(total=need, completed=min(have, need)))),
            ("batch's reward", "-" if reward is None else f"{reward:.3f}"),
            ("trained from", f"version {loop.trainer.get('version', 0)}"),
        ),
        title="trainer",
    )


def _trial(loop: Loop) -> Panel:
    state = loop.rollout
    standing = state.get("standing") or {}
    numbers = standing.get("numbers", {})
    rows: list[tuple[str, RenderableType]] = [
        ("stable", f"version {state.get('stable', '-')}"),
        ("trial", f"version {state['candidate']}: {state['state']}" if state.get("candidate") else "none yet"),
    ]
    if state.get("state") == "canary" and numbers:
        rows += [
            ("reward", _arms(numbers, "stable", "candidate")),
            _evidence(numbers, "evidence", min(_logs(numbers, "log_e."))),
        ]
    if state.get("holdback") is not None and "log_threshold" in numbers:
        rows[1] = ("watched", f"version {state['candidate']}; version {state['holdback']} is held back")
        rows += [
            ("reward", _arms(numbers, "stable", "holdback")),
            _evidence(numbers, "harm", max(_logs(numbers, "log_harm."))),
        ]
    return Panel(grid(*rows), title="gate")


def _logs(numbers: dict[str, float], prefix: str) -> list[float]:
    """By outcome. What one user can move is none."""
    return [value for name, value in numbers.items() if name.startswith(prefix) and name != f"{prefix}user"]


def _arms(numbers: dict[str, float], *arms: str) -> str:
    means = ((arm, numbers.get(f"reward.{arm}", math.nan), numbers[f"units.{arm}"]) for arm in arms)
    return "   ".join(f"{arm} {mean:.2f} ({num:.0f})" for arm, mean, num in means)


def _evidence(numbers: dict[str, float], name: str, log: float) -> tuple[str, RenderableType]:
    needed = numbers["log_threshold"]
    bar = ProgressBar(total=needed, completed=max(0.0, min(log, needed)))
    return name, Group(Text(f"e^{log:.2f} of e^{needed:.2f}"), bar)
