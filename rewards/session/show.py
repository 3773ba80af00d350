"""A session's view on a screen. Nothing is told by colour alone, and a hundred columns are enough."""

import json
import re
import time
from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ingest.records.events import ChainMark, ChatMessage, CloseReason, LinkKind, Part, ToolCall, TurnKind, VersionSpan
from ingest.records.ids import trace_of
from rewards.session.view import Cut, Opinion, SessionReward, SessionView, TrajectoryView, TurnView

Row = tuple[str, str]
"""(label, text)."""

SHORT = 240  # characters of a text: two or three lines
SHORT_SUMMARY = 1200
SHORT_CALL = 100
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a text must not steer the terminal it is read on
_CALL = re.compile(r"<tool_call>.*?</tool_call>", re.DOTALL)

MARKS = {
    ChainMark.MISSING: "a request holds a reply that no trace of this session gave",
    ChainMark.LATE: "a trace came after one that began when it had already ended",
    ChainMark.DUPLICATED: "a trace was delivered more than once",
}
CLOSED = {
    CloseReason.INACTIVE: "nothing came for a while",
    CloseReason.HORIZON: "it reached its horizon",
}
LINKS = {
    LinkKind.COMPACTION: "✂ compaction: context {context} goes on from turn {turn}'s summary, {share:.0%} of it quoted",
    LinkKind.BRANCH: "branch: context {context} takes the place of turn {turn}",
    LinkKind.REWRITE: "rewrite: context {context} restates the conversation up to turn {turn} in other tokens",
}
STYLES = {"user": "cyan", "reply": "green", "calls": "yellow", "result": "yellow", "reward": "magenta"}


def session(view: SessionView, is_full: bool) -> Iterator[RenderableType]:
    """Everything, trajectory after trajectory. Texts are shortened unless `is_full`."""
    for number, trajectory in enumerate(view.trajectories, start=1):
        which = f" · trajectory {number} of {len(view.trajectories)}" if len(view.trajectories) > 1 else ""
        yield Rule(_text(f"session {trajectory.session_id}{which}", "bold"), characters="━", align="left")
        yield _header(trajectory)
        calls = {call.call_id: call for turn in trajectory.turns for call in _calls(turn) if call.call_id}
        cuts = [turn.cut for turn in trajectory.turns if turn.cut and turn.cut.kind is LinkKind.COMPACTION]
        context = 0
        for turn in trajectory.turns:
            yield from _edge(turn, context, is_full)
            context = turn.context or context
            yield _heading(turn, trace_of(view.asked))
            is_below = any(cut.turn == turn.number for cut in cuts)
            yield _indented([*_said(turn, calls, is_full), *_answered(turn, is_below, is_full), *_judged(turn)])


def _calls(turn: TurnView) -> Iterator[ToolCall]:
    """The calls that results may answer: those a request holds, and the reply's."""
    for message in turn.messages:
        yield from message.tool_calls
    yield from turn.tool_calls


def _header(trajectory: TrajectoryView) -> RenderableType:
    opinions = [("feedback", _opinion(opinion, is_session=True)) for opinion in trajectory.feedback]
    return _indented([*_about(trajectory), *opinions])


def _about(trajectory: TrajectoryView) -> Iterator[Row]:
    yield "id", f"{trajectory.trajectory_id} · key {trajectory.key}"
    yield "tenant", f"{trajectory.tenant} · {_arm(trajectory)}"
    ended = f"closed {_time(trajectory.closed_at)}: {CLOSED[trajectory.closed]}"
    not_yet = "NOT CLOSED YET: shown as its traces stand; no trajectory on the log has them"
    yield "opened", f"{_time(trajectory.opened_at)} · {not_yet if trajectory.is_open else ended}"
    given = trajectory.assignment
    if given is not None and given.replay_of is not None:
        whom = "by the replay lane" if given.group else "for a trial"
        yield "replay", f"of trace {given.replay_of}: asked again {whom}, and no conversation that anybody had"
    yield "held out", "yes: never trained" if trajectory.held_out else "no"
    if trajectory.parent_session_id:
        yield "parent", f"session {trajectory.parent_session_id}"
    if trajectory.sub_sessions:
        yield "sub-agents", ", ".join(f"session {name}" for name in trajectory.sub_sessions)
    if not trajectory.rewards:
        yield "reward", "none yet"
    for number, reward in enumerate(trajectory.rewards):
        yield "reward" if number == 0 else "older", _session_reward(reward)


def _arm(trajectory: TrajectoryView) -> str:
    given = trajectory.assignment
    if given is None:
        return "turns of more than one arm or trial: counted for neither"
    trial = f", trial of version {given.trial}" if given.trial is not None else ""
    block = f", block {given.block}" if given.block is not None else ""
    return f"{given.arm} arm{trial}{block}, probability {given.propensity:g}"


def _session_reward(reward: SessionReward) -> str:
    value = f"{reward.value:.3f}" + ("" if reward.has_signal else " (the price of silence: nothing was scored)")
    rates = ", ".join(f"{name} {rate:.2f}" for name, rate in sorted(reward.guardrails.items()))
    return f"{value} under {reward.spec} · guardrails: {rates or 'none could be scored'}"


def _edge(turn: TurnView, before: int, is_full: bool) -> Iterator[RenderableType]:
    """What stands between two turns where the context is another one."""
    if turn.begins_context and turn.cut is not None:
        told = LINKS[turn.cut.kind].format(context=turn.context, turn=turn.cut.turn, share=turn.cut.coverage)
        is_cut = turn.cut.kind is LinkKind.COMPACTION
        yield Rule(Text(told, "bold yellow"), characters="═" if is_cut else "─")
        if is_cut:
            yield _summary(turn.cut, is_full)
    elif turn.begins_context and before:
        yield Rule(f"context {turn.context} begins on its own")
    elif before and turn.context not in (None, before):
        yield Rule(f"back in context {turn.context}")
    for mark in turn.marks:
        yield Text(f"  ! context {turn.context} is marked {mark}: {MARKS[mark]}", "bold red")


def _summary(cut: Cut, is_full: bool) -> Panel:
    found = {"kept": cut.findings.kept, "lost": cut.findings.lost, "wrong": cut.findings.wrong}
    rows = [
        (f"{label} {len(facts)}", " · ".join(_short(fact, SHORT_CALL, is_full) for fact in facts))
        for label, facts in found.items()
        if facts
    ]
    parts: list[RenderableType] = [_text(_short(cut.summary, SHORT_SUMMARY, is_full))]
    if rows:
        parts += ["", Text("what was used after the cut, and tasks that were open:", "dim"), _grid(rows)]
    return Panel(Group(*parts), title=f"summary, by turn {cut.turn}", title_align="left")


def _heading(turn: TurnView, asked_trace: str) -> Text:
    parts = [
        turn.kind.value,
        _versions(turn),
        f"{turn.num_tokens} tokens",
        turn.finish_reason if turn.status == 200 else f"{turn.finish_reason}, status {turn.status}",
        _time(turn.at, "%H:%M:%S"),
    ]
    heading = Text(f"turn {turn.number}", "bold reverse" if turn.kind is TurnKind.SUMMARY else "bold")
    heading.append(f"  {' · '.join(part for part in parts if part)}", "not bold not reverse dim")
    if turn.trace_id == asked_trace:
        heading.append("  <- the one asked for", "not reverse bold")
    return heading


def _versions(turn: TurnView) -> str:
    """Which weights sampled it, and which of its tokens where there were several."""
    if not turn.versions:
        return "weights unknown" if turn.num_tokens else ""
    if len(turn.spans) < 2:
        return f"version {', '.join(map(str, turn.versions))}"
    return ", ".join(map(_span, turn.spans))


def _span(span: VersionSpan) -> str:
    return f"version {span.version} (tokens {span.start}-{span.end - 1})"


def _said(turn: TurnView, calls: dict[str, ToolCall], is_full: bool) -> Iterator[Row]:
    for number, message in enumerate(turn.messages):
        if turn.cut is not None and number == turn.cut.message and not is_full:
            yield message.role, "[carries the summary above]"
        else:
            yield from _message(message, calls, is_full)


def _answered(turn: TurnView, is_below: bool, is_full: bool) -> Iterator[Row]:
    said = _CALL.sub("", turn.reply).strip() if turn.tool_calls else turn.reply
    if is_below:
        yield "reply", "[the summary, at the cut below]"
    elif said or not turn.tool_calls:
        limit = SHORT_SUMMARY if turn.kind is TurnKind.SUMMARY else SHORT
        yield "reply", _short(said, limit, is_full) or "(empty)"
    for call in turn.tool_calls:
        yield "calls", _call(call, is_full)


def _judged(turn: TurnView) -> Iterator[Row]:
    for opinion in turn.feedback:
        yield "feedback", _opinion(opinion)
    if turn.reward is not None or turn.components:
        yield "reward", _reward(turn)


def _message(message: ChatMessage, calls: dict[str, ToolCall], is_full: bool) -> Iterator[Row]:
    if message.role == "tool":
        called = calls.get(message.call_id)
        of = f"of {_call(called, is_full)}: " if called else ""
        yield "result", of + _short(message.text, SHORT, is_full)
        return
    if message.text or not message.tool_calls:
        yield message.role or "?", _short(message.text, SHORT, is_full)
    for call in message.tool_calls:
        yield "called", _call(call, is_full)


def _call(call: ToolCall, is_full: bool) -> str:
    """`read(path="a.py")`; arguments that are no JSON object stand as they were given."""
    try:
        given = json.loads(call.arguments)
    except ValueError:
        given = None
    told = call.arguments
    if isinstance(given, dict):
        told = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items())
    return f"{call.name}({_short(told, SHORT_CALL, is_full)})"


def _opinion(opinion: Opinion, is_session: bool = False) -> str:
    said = opinion.feedback
    about = f"about {said.trace_id}, no turn of it: " if is_session and said.trace_id else ""
    late = " [late: came after the session closed, changes nothing]" if opinion.is_late else ""
    return f"{about}{said.name} {said.value:+g}{late}" + (f' "{said.comment}"' if said.comment else "")


def _reward(turn: TurnView) -> str:
    """The turn's value, then every component: its score, what it adds and with what weight, or why it has none."""
    value = turn.reward.value if turn.reward else None
    parts = {part.name: part for part in turn.reward.parts} if turn.reward else {}
    has_parts = bool(parts)
    given = [(part.name, part.value) for part in turn.components if part.value is not None]
    scored = [_component(name, score, parts.pop(name, None), has_parts) for name, score in given]
    credited = [f"{part.name} {part.value:.2f} by credit, weight {part.weight:g}" for part in parts.values()]
    unscored = [f"{part.name} ({part.unscored})" for part in turn.components if part.value is None]
    told = " · ".join([f"{value:.3f}" if value is not None else "unscored", *scored, *credited])
    return told + (f"\nunscored: {', '.join(unscored)}" if unscored else "")


def _component(name: str, score: float, part: Part | None, has_parts: bool) -> str:
    """`has_parts`: the reward tells its parts, as those of version 1 do not."""
    if part is None:
        return f"{name} {score:.2f}" + (", no part of the sum" if has_parts else "")
    changed = f" -> {part.value:.2f} after credit and factors" if abs(part.value - score) > 1e-9 else ""
    return f"{name} {score:.2f}{changed}, weight {part.weight:g}"


def _indented(rows: Iterable[Row]) -> RenderableType:
    return Padding(_grid(rows), (0, 0, 1, 2))


def _grid(rows: Iterable[Row]) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(min_width=10, no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for label, text in rows:
        grid.add_row(_text(label, "dim"), _text(text, STYLES.get(label, "")))
    return grid


def _text(text: str, style: str = "") -> Text:
    return Text(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text), style)


def _short(text: str, limit: int, is_full: bool) -> str:
    """`text` as it is, or on one line with what is left out counted."""
    if is_full:
        return text
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}… (+{len(line) - limit} characters)"


def _time(at: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    return time.strftime(form, time.localtime(at))
