"""Rows of the lake as the records that they were. Pure: the other way of `ingest.lake.rows`.

The lake does not keep whether a reply was redacted, as against its request (`Turn.is_reply_altered`): where anything
was, the reply is taken to be, so that it never trains. Nor what was redacted in feedback; no scorer of ours reads it.
"""

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ingest.records.events import (
    Assignment,
    Chain,
    Component,
    Consent,
    Feedback,
    Reward,
    Segment,
    Trajectory,
    Turn,
    TurnReward,
    VersionSpan,
    about,
)

if TYPE_CHECKING:
    from ingest.lake.content import Content
    from ingest.lake.sessions import SessionRows, Values


class Lost(StrEnum):
    """Why a session cannot be scored as it was."""

    ERASED = "erased: its user's key is gone"
    INCOMPLETE = "incomplete: the lake lacks some of its turns"


def trajectory(rows: "SessionRows") -> Trajectory | Lost:
    """What scorers saw. Of more feedback than they saw, which came too late for them, the earliest is taken."""
    row = rows.row
    seen = rows.feedback[: row["num_feedback"]]
    if any(content is None for _, content in rows.turns) or any(_is_erased(*one) for one in seen):
        return Lost.ERASED
    if len(rows.turns) != row["num_turns"]:
        return Lost.INCOMPLETE
    turns = [(turn, content) for turn, content in rows.turns if content is not None]
    return Trajectory(
        trajectory_id=row["trajectory_id"],
        revision=row["revision"],
        partition=turns[0][0]["trace_partition"] if turns else None,
        session_id=row["session_id"],
        parent_session_id=row["parent_session_id"],
        tenant=row["tenant"],
        user=row["user"],
        consent=Consent(turns[0][0]["consent"]) if turns else Consent.ASSUMED,
        assignment=_assignment(row),
        held_out=row["held_out"],
        closed=row["closed"],
        opened_at=row["at"].timestamp(),
        closed_at=row["closed_at"].timestamp(),
        turns=tuple(_turn(turn, content) for turn, content in turns),
        chains=_chains(json.loads(row["chains"]), turns),
        feedback=tuple(_feedback(*one) for one in seen),
    )


def _is_erased(row: "Values", content: "Content | None") -> bool:
    return content is None and row["key_generation"] is not None


def _assignment(row: "Values") -> Assignment | None:
    if row["arm"] is None:
        return None
    taken = ("arm", "trial", "propensity", "replay_of", "block")
    return Assignment.model_validate({name: row[name] for name in taken})


def _turn(row: "Values", content: "Content") -> Turn:
    taken = ("trace_id", "kind", "parent", "status", "finish_reason", "num_tokens", "took_s")
    return Turn.model_validate(
        {name: row[name] for name in taken}
        | {"offset": row["trace_offset"], "at": row["at"].timestamp()}
        | dict.fromkeys(("is_altered", "is_reply_altered"), bool(row["altered"]))
        | {"versions": tuple(dict.fromkeys(row["versions"]))}
        | dict(content.text)
    )


def _chains(written: Sequence[dict[str, Any]], turns: Iterable[tuple["Values", "Content"]]) -> tuple[Chain, ...]:
    """Chains with the tokens and segments that turns have of them; the rest is `written`, the session's `chains`."""
    tokens: list[list[int]] = [[] for _ in written]
    segments: list[list[Segment]] = [[] for _ in written]
    for row, content in turns:
        if (number := row["chain"]) is None:
            continue
        shared, start = written[number].get("shared", 0), row["chain_start"]
        own = content.context_ids + content.reply_ids
        tokens[number] += own if segments[number] else own[shared - start :]
        segments[number].append(_segment(row, content))
    return tuple(
        Chain(token_ids=tuple(ids), segments=tuple(held), **rest)
        for ids, held, rest in zip(tokens, segments, written, strict=True)
    )


def _segment(row: "Values", content: "Content") -> Segment:
    begin = row["chain_start"] + len(content.context_ids)
    edges = (0, *row["span_ends"])
    spans = [
        VersionSpan(version=version, start=start, end=end)
        for version, start, end in zip(row["versions"], edges, edges[1:], strict=False)
    ]
    return Segment(
        trace_id=row["trace_id"],
        start=begin,
        end=begin + len(content.reply_ids),
        logprobs=content.logprobs,
        spans=tuple(spans),
    )


def _feedback(row: "Values", content: "Content | None") -> Feedback:
    taken = ("feedback_id", "trace_id", "session_id", "tenant", "user", "name", "value")
    return Feedback(
        **{name: row[name] for name in taken},
        comment=content.text["comment"] if content else "",
        at=row["at"].timestamp(),
    )


def reward(row: "Values", of: Trajectory) -> Reward:
    """The reward that was made of a trajectory."""
    taken = ("reward_id", "trajectory_id", "session_id", "revision", "spec", "value", "has_signal")
    return Reward(
        **{name: row[name] for name in taken},
        **about(of),
        components=tuple(Component.model_validate(one) for one in row["components"]),
        turns=tuple(TurnReward.model_validate(one) for one in row["turns"]),
        guardrails={one["name"]: one["value"] for one in row["guardrails"]},
        trajectory=of,
        at=row["at"].timestamp(),
    )
