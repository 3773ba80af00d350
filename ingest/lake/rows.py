"""Records as rows of the lake's tables. Pure, but for the sealing of what people and models wrote.

A row holds ids, numbers and words of our own in columns, and everything else in its sealed `content`. A turn's tokens
are those that its chain did not have before it; `chain` and `chain_start` say where they go.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ingest.lake.content import Content, Vault
from ingest.lake.manifest import Table
from ingest.lake.schema import Row
from ingest.records.chat import text_of
from ingest.records.events import (
    Chain,
    Component,
    Fate,
    Feedback,
    Record,
    Release,
    Reward,
    Segment,
    Trajectory,
    Turn,
    VersionSpan,
    key_of,
    session_key,
)
from ingest.records.packing import TokenIds
from ingest.sessions.amend import first_id
from ingest.sessions.chains import whole

_CRASHED = "crashed"  # what a crashed scorer said may quote what it read


@dataclass(frozen=True)
class TableRow:
    """A row, the table it belongs to, and its tenant; fates and releases have none."""

    table: Table
    tenant: str
    values: Row


def rows_of(record: Record, partition: int, offset: int, vault: Vault, subject: str = "") -> Iterator[TableRow]:
    """The rows of a record that lay at `offset` of `partition` of its topic; none of a kind the lake does not keep.

    `subject` is whom the record is about, as its message says; empty where it was not sealed.
    """
    place = {"partition": partition, "offset": offset}
    match record:
        case Trajectory():
            yield TableRow(Table.SESSIONS, record.tenant, session_row(record) | place)
            for values in turn_rows(record, vault, subject):
                yield TableRow(Table.TURNS, record.tenant, values | place)
        case Feedback():
            yield TableRow(Table.FEEDBACK, record.tenant, feedback_row(record, vault, subject) | place)
        case Reward():
            yield TableRow(Table.REWARDS, record.tenant, reward_row(record) | place)
        case Fate():
            for values in fate_rows(record):
                yield TableRow(Table.FATES, "", values | place)
        case Release():
            yield TableRow(Table.RELEASES, "", release_row(record) | place)


def session_row(trajectory: Trajectory) -> Row:
    """The session as a whole. `chains` is JSON: how each leans on another and goes on from it."""
    given = trajectory.assignment
    return {
        "at": trajectory.opened_at,
        "closed_at": trajectory.closed_at,
        "trajectory_id": trajectory.trajectory_id,
        "first_trajectory_id": first_id(trajectory, [turn.trace_id for turn in trajectory.turns]),
        "session_id": trajectory.session_id,
        "session_key": session_key(trajectory.session_id),
        "parent_session_id": trajectory.parent_session_id,
        "tenant": trajectory.tenant,
        "user": trajectory.user,
        "revision": trajectory.revision,
        "arm": given.arm.value if given else None,
        "trial": given.trial if given else None,
        "propensity": given.propensity if given else None,
        "held_out": trajectory.held_out,
        "replay_of": given.replay_of if given else None,
        "block": given.block if given else None,
        "closed": trajectory.closed.value,
        "num_turns": len(trajectory.turns),
        "num_feedback": len(trajectory.feedback),
        "chains": json.dumps([_chain(chain) for chain in trajectory.chains], separators=(",", ":")),
    }


def _chain(chain: Chain) -> dict[str, Any]:
    return chain.model_dump(mode="json", include={"base", "shared", "link", "marks"}, exclude_none=True)


@dataclass(frozen=True)
class _Own:
    """A turn's place in its chain: its segment, and its own tokens `[start, segment.start)` before its reply."""

    chain: int
    segment: Segment
    start: int
    context_ids: TokenIds
    reply_ids: TokenIds


def _own_tokens(trajectory: Trajectory) -> dict[str, _Own]:
    """What each turn added to its chain, by trace id."""
    found = {}
    for number, chain in enumerate(whole(trajectory.chains)):
        start = trajectory.chains[number].shared
        for segment in chain.segments:
            start = min(start, segment.start)
            context = chain.token_ids[start : segment.start]
            reply = chain.token_ids[segment.start : segment.end]
            found[segment.trace_id] = _Own(number, segment, start, context, reply)
            start = segment.end
    return found


def turn_rows(trajectory: Trajectory, vault: Vault, subject: str) -> Iterator[Row]:
    """A row per turn, in the order they began."""
    own, given = _own_tokens(trajectory), trajectory.assignment
    shared = {
        "trajectory_id": trajectory.trajectory_id,
        "session_id": trajectory.session_id,
        "session_key": session_key(trajectory.session_id),
        "tenant": trajectory.tenant,
        "user": trajectory.user,
        "revision": trajectory.revision,
        "arm": given.arm.value if given else None,
        "trial": given.trial if given else None,
        "held_out": trajectory.held_out,
        "replay_of": given.replay_of if given else None,
        "consent": trajectory.consent.value,
        "trace_partition": trajectory.partition,
    }
    for number, turn in enumerate(trajectory.turns, start=1):
        place = own.get(turn.trace_id)
        yield shared | _turn_row(turn, number, place) | vault.put(subject, _turn_content(turn, place))


def _turn_row(turn: Turn, number: int, place: _Own | None) -> Row:
    spans: tuple[VersionSpan, ...] = place.segment.spans if place else ()
    return {
        "at": turn.at,
        "trace_id": turn.trace_id,
        "trace_offset": turn.offset,
        "number": number,
        "kind": turn.kind.value,
        "parent": turn.parent,
        "altered": turn.is_altered,
        "status": turn.status,
        "finish_reason": turn.finish_reason,
        "num_tokens": turn.num_tokens,
        "took_s": turn.took_s,
        "num_messages": len(turn.messages),
        "num_tool_calls": len(turn.tool_calls),
        "versions": [span.version for span in spans] if spans else list(turn.versions),
        "span_ends": [span.end for span in spans],
        "chain": place.chain if place else None,
        "chain_start": place.start if place else None,
    }


def _turn_content(turn: Turn, place: _Own | None) -> Content:
    text = text_of(turn)
    if place is None:
        return Content(text)
    return Content(text, place.context_ids, place.reply_ids, place.segment.logprobs)


def feedback_row(feedback: Feedback, vault: Vault, subject: str) -> Row:
    """A signal, and its comment."""
    sealed = vault.put(subject, Content({"comment": feedback.comment})) if feedback.comment else _NOTHING
    return {
        "at": feedback.at,
        "feedback_id": feedback.feedback_id,
        "trace_id": feedback.trace_id,
        "session_id": feedback.session_id,
        "session_key": key_of(session_id=feedback.session_id, trace_id=feedback.trace_id),
        "tenant": feedback.tenant,
        "user": feedback.user,
        "name": feedback.name,
        "value": feedback.value,
    } | sealed


_NOTHING: Row = {"subject": None, "key_generation": None, "content": None}


def reward_row(reward: Reward) -> Row:
    """A score, without the trajectory that old records hold."""
    return {
        "at": reward.at,
        "reward_id": reward.reward_id,
        "trajectory_id": reward.trajectory_id,
        "first_trajectory_id": first_id(reward, reward.trace_ids),
        "session_id": reward.session_id,
        "session_key": session_key(reward.session_id),
        "tenant": reward.tenant,
        "user": reward.user,
        "revision": reward.revision,
        "spec": reward.spec,
        "value": reward.value,
        "has_signal": reward.has_signal,
        "guardrails": [{"name": name, "value": value} for name, value in reward.guardrails.items()],
        "turns": [turn.model_dump(mode="json") for turn in reward.turns],
        "components": [_component(component) for component in reward.components],
    }


def _component(component: Component) -> dict[str, Any]:
    told = component.model_dump()
    if component.unscored and component.unscored.startswith(f"{_CRASHED}:"):
        told["unscored"] = _CRASHED
    return told


def fate_rows(fate: Fate) -> Iterator[Row]:
    """How each of some traces ended."""
    for trace_id in fate.trace_ids:
        yield {
            "at": fate.at,
            "trace_id": trace_id,
            "session_key": key_of(session_id=None, trace_id=trace_id),
            "kind": fate.kind.value,
            "version": fate.version,
            "reason": fate.reason,
        }


def release_row(release: Release) -> Row:
    """An entry of the release log."""
    return {
        "at": release.at,
        "release": release.release,
        "epoch": release.epoch,
        "kind": release.kind.value,
        "stable": release.stable,
        "candidate": release.candidate,
        "state": release.state.value if release.state else None,
        "share": release.share,
        "engines": json.dumps(release.engines),
        "numbers": json.dumps(release.numbers),
        "reason": release.reason,
    }
