"""What operators ask for, on a screen. Nothing is told by colour alone."""

import re
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from infra.times import span
from ingest.store.releases import UNDECIDED
from serving.rollout.operators import chart
from serving.rollout.operators.history import History
from serving.rollout.operators.story import Stage, Story

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # what somebody gave as a reason must not steer a terminal
_NONE = "-"


def text(told: str, style: str = "") -> Text:
    """Words from elsewhere, as they are."""
    return Text(_CONTROL.sub(" ", told), style)


def stamp(at: float) -> str:
    """A time, in this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def history(found: History) -> Iterator[RenderableType]:
    """Entries as a table, newest last."""
    if not found.entries:
        yield text(f"no release is of that kind; the newest of all is release {found.last}")
        return
    table = Table("release", "time", "what", "version", "author", "reason", box=box.SIMPLE)
    for one in found.entries:
        release = one.release
        table.add_row(
            str(release.release), stamp(release.at), one.what, str(one.version), text(one.author), text(release.reason)
        )
    yield table
    if found.num > len(found.entries):
        yield text(f"the newest {len(found.entries)} of {found.num}; `--limit {found.num}` shows all")


def story(told: Story, now: float, width: int) -> Iterator[RenderableType]:
    """A trial from its beginning: what happened, the evidence over time, and how it ended or stands."""
    yield text(heading(told), "bold")
    yield text(told.told)
    for note in told.notes:
        yield text(f"note: {note}")
    table = Table("state", "began", "lasted", "by", "why", box=box.SIMPLE)
    for row in rows(told, now):
        table.add_row(*map(text, row))
    yield table
    for plot in chart.plots(told.points):
        yield text(f"{plot.title} (natural logarithm)", "bold")
        yield text(chart.key(plot))
        yield Text(chart.chart(plot, width - 1), no_wrap=True)
    if not told.points:
        yield text("no evidence yet: no session of this trial was scored while users met it")


def heading(told: Story) -> str:
    """Which trial, of what."""
    made = f", made from version {told.parent}" if told.parent is not None else ""
    published = f", published {stamp(told.published_at)}" if told.published_at is not None else ""
    return f"version {told.version}{made}{published}: {words(told.state)}"


def words(state: str) -> str:
    """A state, as people say it."""
    return state.replace("_", " ")


def rows(told: Story, now: float) -> Iterator[tuple[str, str, str, str, str]]:
    """States and what happened inside them: state, began, lasted, by, why."""
    for stage in told.stages:
        yield words(stage.state), stamp(stage.began_at), lasted(stage, told, now), stage.author or _NONE, stage.reason
        for before, step in pairwise(stage.steps):
            change = f"share {step.share:.0%}" if step.share != before.share else ""
            mode = step.mode if step.mode is not before.mode else ""
            yield f"  {change or mode}", stamp(step.at), "", step.author or _NONE, step.reason


def lasted(stage: Stage, told: Story, now: float) -> str:
    """How long a state lasted; an end has no length."""
    if stage.ended_at is not None:
        return span(stage.ended_at - stage.began_at)
    is_last = stage is told.stages[-1]
    return _NONE if is_last and told.is_over else f"{span(now - stage.began_at)} so far"


def status(state: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What is served and on trial now, from the controller's own words."""
    if "stable" not in state:
        yield text(f"the controller is {state.get('state', 'starting')}")
        return
    yield text(now_served(state), "bold")
    standing = state.get("standing")
    if standing and (state["state"] in UNDECIDED or state.get("holdback") is not None):
        yield text(standing["reason"])
    for one in state.get("disagreement") or ():
        yield text(f"DISAGREEMENT: {one}", "bold")
    held, given = state.get("held") or {}, state.get("engines") or {}
    if held or given:
        table = Table("engine", "shall serve", "holds", box=box.SIMPLE)
        for name in sorted({*held, *given}):
            versions = ", ".join(map(str, held[name])) if name in held else "does not answer"
            table.add_row(text(name), str(given.get(name, state["stable"])), versions)
        yield table


def now_served(state: Mapping[str, Any]) -> str:
    """What users get, in a sentence."""
    told = [f"version {state['stable']} is stable, and the rollout is {state.get('mode') or 'open'}"]
    if state.get("holdback") is not None:
        told.append(f"it is watched: {state['share']:.0%} of sessions stay on version {state['holdback']}")
    elif state["state"] in UNDECIDED:
        told.append(
            f"version {state['candidate']} is on trial ({words(state['state'])}) with {state['share']:.0%} of sessions"
        )
    elif state.get("candidate") is not None:
        told.append(
            f"nothing is on trial; the last one, of version {state['candidate']}, ended {words(state['state'])}"
        )
    else:
        told.append("nothing is on trial")
    return "; ".join(told)
