"""A session as people read it: what the log says of it, put in the order of its turns. Pure; also the command's JSON.

Contexts are the trajectory's chains, turns and contexts counted from 1 as people count. A cut stands at the first turn
of a context that goes on from an earlier one.
"""

from collections.abc import Callable, Iterable, Sequence

from ingest.records.events import (
    Assignment,
    ChainMark,
    ChatMessage,
    CloseReason,
    Component,
    Feedback,
    Frozen,
    LinkKind,
    Reward,
    ToolCall,
    Trajectory,
    Turn,
    TurnKind,
    TurnReward,
    VersionSpan,
    session_key,
)
from ingest.sessions.history import Compaction, compactions


class Findings(Frozen):
    """Statements of the history that mattered after a cut, kept or lost, and those of the summary that are wrong."""

    kept: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


class Cut(Frozen):
    """How a context goes on from turn number `turn`; at a compaction with its summary, which `message` carries."""

    kind: LinkKind
    turn: int
    coverage: float
    message: int | None
    summary: str = ""
    findings: Findings = Findings()


class Opinion(Frozen):
    """Feedback, and whether it came too late to change anything."""

    feedback: Feedback
    is_late: bool


class TurnView(Frozen):
    """A turn. `context` is none for turns beside the conversation; `marks` are its context's, at its first turn.

    `reward` and `components` are those of the newest reward.
    """

    number: int
    trace_id: str
    kind: TurnKind
    context: int | None
    begins_context: bool
    marks: tuple[ChainMark, ...]
    cut: Cut | None
    messages: tuple[ChatMessage, ...]
    reply: str
    tool_calls: tuple[ToolCall, ...]
    spans: tuple[VersionSpan, ...]
    versions: tuple[int, ...]
    num_tokens: int
    finish_reason: str
    status: int
    at: float
    feedback: tuple[Opinion, ...]
    reward: TurnReward | None
    components: tuple[Component, ...]


class SessionReward(Frozen):
    """A trajectory's reward under one spec, without its turns'."""

    spec: str
    value: float
    has_signal: bool
    guardrails: dict[str, float]
    at: float


class TrajectoryView(Frozen):
    """A trajectory. `is_open`: it is not on its topic, and is shown as its traces stand.

    `feedback` is about the session, or about turns that it does not have; `rewards` stand newest first.
    """

    trajectory_id: str
    session_id: str
    key: str
    is_open: bool
    parent_session_id: str | None
    sub_sessions: tuple[str, ...]
    tenant: str
    assignment: Assignment | None
    held_out: bool
    closed: CloseReason
    opened_at: float
    closed_at: float
    rewards: tuple[SessionReward, ...]
    feedback: tuple[Opinion, ...]
    turns: tuple[TurnView, ...]


class SessionView(Frozen):
    """What was asked for, and every trajectory that answers to it, oldest first."""

    asked: str
    trajectories: tuple[TrajectoryView, ...]


Find = Callable[[Trajectory, Compaction], Findings]


def no_findings(_trajectory: Trajectory, _compaction: Compaction) -> Findings:
    """Where nobody looks for facts."""
    return Findings()


def build(
    trajectory: Trajectory,
    rewards: Iterable[Reward] = (),
    late: Iterable[Feedback] = (),
    sub_sessions: Iterable[str] = (),
    find: Find = no_findings,
    *,
    is_open: bool = False,
) -> TrajectoryView:
    """The view of one trajectory. `late` is feedback that is not part of it."""
    newest = sorted(rewards, key=lambda reward: reward.at, reverse=True)
    opinions = [Opinion(feedback=item, is_late=False) for item in trajectory.feedback]
    opinions += [Opinion(feedback=item, is_late=True) for item in late]
    known = {turn.trace_id for turn in trajectory.turns}
    return TrajectoryView(
        trajectory_id=trajectory.trajectory_id,
        session_id=trajectory.session_id,
        key=session_key(trajectory.session_id),
        is_open=is_open,
        parent_session_id=trajectory.parent_session_id,
        sub_sessions=tuple(sorted(sub_sessions)),
        tenant=trajectory.tenant,
        assignment=trajectory.assignment,
        held_out=trajectory.held_out,
        closed=trajectory.closed,
        opened_at=trajectory.opened_at,
        closed_at=trajectory.closed_at,
        rewards=tuple(_session_reward(reward) for reward in newest),
        feedback=tuple(one for one in opinions if one.feedback.trace_id not in known),
        turns=_turns(trajectory, newest[0] if newest else None, opinions, find),
    )


def _session_reward(reward: Reward) -> SessionReward:
    return SessionReward(
        spec=reward.spec,
        value=reward.value,
        has_signal=reward.has_signal,
        guardrails=reward.guardrails,
        at=reward.at,
    )


def _turns(
    trajectory: Trajectory, reward: Reward | None, opinions: Sequence[Opinion], find: Find
) -> tuple[TurnView, ...]:
    segments = {s.trace_id: (number, s) for number, chain in enumerate(trajectory.chains) for s in chain.segments}
    cuts = _cuts(trajectory, find)
    rewarded = {turn.trace_id: turn for turn in reward.turns} if reward else {}
    firsts = {chain.segments[0].trace_id: chain for chain in trajectory.chains if chain.segments}
    views = []
    for number, turn in enumerate(trajectory.turns, start=1):
        name = turn.trace_id
        chain_number, segment = segments.get(name, (None, None))
        views.append(
            TurnView(
                number=number,
                context=None if chain_number is None else chain_number + 1,
                begins_context=name in firsts,
                marks=firsts[name].marks if name in firsts else (),
                cut=cuts.get(name),
                spans=segment.spans if segment else (),
                feedback=tuple(one for one in opinions if one.feedback.trace_id == name),
                reward=rewarded.get(name),
                components=tuple(part for part in reward.components if part.trace_id == name) if reward else (),
                **_as_it_is(turn),
            )
        )
    return tuple(views)


def _as_it_is(turn: Turn) -> dict[str, object]:
    taken = ("trace_id", "kind", "messages", "reply", "tool_calls", "versions", "num_tokens", "finish_reason", "status")
    return {name: getattr(turn, name) for name in (*taken, "at")}


def _cuts(trajectory: Trajectory, find: Find) -> dict[str, Cut]:
    """Trace id of a context's first turn -> how it goes on."""
    number = {turn.trace_id: at for at, turn in enumerate(trajectory.turns, start=1)}
    found = {}
    for chain in trajectory.chains:
        if chain.link is not None and chain.link.trace_id in number:
            found[chain.segments[0].trace_id] = Cut(
                kind=chain.link.kind,
                turn=number[chain.link.trace_id],
                coverage=chain.link.coverage,
                message=chain.link.message,
            )
    for compaction in compactions(trajectory):
        name = compaction.first.trace_id
        more = {"summary": compaction.summary.reply, "findings": find(trajectory, compaction)}
        found[name] = found[name].model_copy(update=more)
    return found
