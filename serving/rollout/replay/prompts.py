"""Which prompts are asked again, and the requests they were.

A turn of each held-out session, at most so many sessions of one user: what a prompt gives is then evidence on its own.
Which turn it is, a hash of the candidate says, so each trial asks others. A request is read only when it is asked, so
of somebody who was erased meanwhile nothing is asked.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from infra.config import ReplayConfig
from infra.errors import RecordError
from ingest.log import reader
from ingest.log.protocol import EventLog, Message
from ingest.log.topics import TRAJECTORIES
from ingest.records.events import Consent, Trace, Trajectory, Turn, TurnKind, content_id
from ingest.records.prefixes import AnyPrefix
from ingest.sessions import elders
from ingest.sessions.held import Held

HTTP_OK = 200
ENDPOINTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
        "/v1/completions": ("max_tokens",),
        "/v1/messages": ("max_tokens",),
        "/v1/responses": ("max_output_tokens",),
    }
)
"""What can be asked again, and how each is told the length of its reply; the last is set where a request has none."""
_NOT_AGAIN = ("stream", "stream_options", "n", "best_of", "user", "background", "store")


@dataclass(frozen=True)
class Prompt:
    """A turn that is asked again: whose it is, and where its trace and those before it lie, by their ids."""

    trace_id: str
    tenant: str
    user: str
    consent: Consent
    partition: int
    offsets: Mapping[str, int]


@dataclass(frozen=True)
class Request:
    """What is asked again."""

    path: str
    body: dict[str, Any]


def recent(log: EventLog, config: ReplayConfig, salt: str) -> tuple[Prompt, ...]:
    """The prompts of the newest held-out sessions on the log, newest first. Raises `LogError`."""
    ends = log.ends(TRAJECTORIES.name)
    each = -(-config.lookback // max(1, len(ends)))
    begin = {(TRAJECTORIES.name, partition): max(0, end - each) for partition, end in ends.items()}
    return pick(reader.replay(log, TRAJECTORIES, Trajectory, begin), config, salt)


def pick(trajectories: Iterable[Trajectory], config: ReplayConfig, salt: str) -> tuple[Prompt, ...]:
    """The prompts to ask again, of trajectories in any order. A session's later revision takes an earlier one's place.

    Replays are no sessions: what was asked again is not asked a third time.
    """
    held: dict[str, Trajectory] = {}
    for one in trajectories:
        is_replay = one.assignment is not None and one.assignment.replay_of is not None
        if one.held_out and not is_replay and one.turns:
            before = held.get(one.session_id)
            if before is None or (one.opened_at, one.revision) >= (before.opened_at, before.revision):
                held[one.session_id] = one
    num_of: Counter[str] = Counter()
    found: list[Prompt] = []
    for one in sorted(held.values(), key=lambda one: (-one.opened_at, one.session_id)):
        owner = f"user {one.tenant} {one.user}" if one.user else f"session {one.parent_session_id or one.session_id}"
        turn = _turn(one, salt)
        if turn is None or one.partition is None or num_of[owner] >= config.max_per_user:
            continue
        num_of[owner] += 1
        offsets = {each.trace_id: each.offset for each in one.turns if each.offset is not None}
        found.append(Prompt(turn.trace_id, one.tenant, one.user, one.consent, one.partition, offsets))
        if len(found) == config.max_prompts:
            break
    return tuple(found)


def _turn(trajectory: Trajectory, salt: str) -> Turn | None:
    """A main turn that was answered."""
    turns = [
        turn
        for turn in trajectory.turns
        if turn.kind is TurnKind.MAIN and turn.status == HTTP_OK and turn.offset is not None
    ]
    return min(turns, key=lambda turn: content_id(salt, turn.trace_id), default=None)


def request_of(log: EventLog, prompt: Prompt, model: str, max_tokens: int | None) -> Request | None:
    """The request as it was made, but whole, at once, and no longer than `max_tokens`, if that is given.

    `None` where it can be read no longer, as of somebody who was erased, or cannot be asked again. Raises `LogError`.
    """

    def find(prefix: AnyPrefix) -> Held | None:
        found = stored(prefix.parent)
        return found and Held.of(*found)

    def stored(trace_id: str) -> tuple[Trace, Message] | None:
        offset = prompt.offsets.get(trace_id)
        return None if offset is None else elders.stored_at(log, prompt.partition, offset)

    own = stored(prompt.trace_id)
    try:
        trace = own and elders.whole(own[0], find)
    except RecordError:
        return None
    if not trace or trace.trace_id != prompt.trace_id or trace.endpoint not in ENDPOINTS:
        return None
    given = trace.request
    if given.get("previous_response_id") or _is_several(given.get("prompt")):
        return None
    lengths = ENDPOINTS[trace.endpoint]
    body = {name: value for name, value in given.items() if name not in _NOT_AGAIN} | {"model": model}
    if max_tokens is None:
        return Request(trace.endpoint, body)
    asked = [name for name in lengths if isinstance(given.get(name), int)] or [lengths[-1]]
    for name in asked:
        body[name] = min(given.get(name, max_tokens), max_tokens)
    return Request(trace.endpoint, body)


def _is_several(prompt: object) -> bool:
    """Whether one request holds several prompts: each has a trace of its own."""
    return isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int)
