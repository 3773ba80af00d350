"""Every record on the log. Costs pydantic and nothing else to import.

A record is frozen and knows its schema name and version; `golden/` under the tests keeps one file of every
version ever written, and each must stay readable. Token ids are uint32 and log-probabilities float32, packed by
`ingest.records.packing`. Times are Unix seconds and are always given by the caller.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ingest.records.kinds import Arm as Arm
from ingest.records.kinds import ChainMark as ChainMark
from ingest.records.kinds import CloseReason as CloseReason
from ingest.records.kinds import Consent as Consent
from ingest.records.kinds import FateKind as FateKind
from ingest.records.kinds import LinkKind as LinkKind
from ingest.records.kinds import Mode as Mode
from ingest.records.kinds import ReleaseKind as ReleaseKind
from ingest.records.kinds import TrialState as TrialState
from ingest.records.kinds import TurnKind as TurnKind
from ingest.records.packing import Logprobs, TokenIds

Headers = dict[str, str]
Name = Annotated[str, Field(min_length=1, max_length=256)]

SESSION_END = "session_end"
"""The name of feedback by which a client says that its session is over; its value says nothing."""


FEEDBACK_AT = "feedback_at.median"
"""The metric of a version that says when the feedback it learnt from was given: the median, in Unix seconds."""

FEEDBACK_FROM, FEEDBACK_TO = "feedback_at.first", "feedback_at.last"
SESSIONS_FROM, SESSIONS_TO = "sessions_at.first", "sessions_at.last"
"""The same, of the first and the last feedback, and of when the first and the last session it learnt from began."""


class Frozen(BaseModel):
    """A value: never changed, and it refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(Frozen):
    """A record on the log. Subclasses name their schema."""

    SCHEMA: ClassVar[str]
    VERSION: ClassVar[int] = 1


class VersionSpan(Frozen):
    """Reply tokens `[start, end)` were sampled by weights `version`."""

    version: int
    start: int
    end: int


class Group(Frozen):
    """The answers to one prompt that the replay lane asks for: `size` of them, all turns of one session.

    `propensity` is the probability with which the lane chose the prompt, as its trace, the anchor, turned out; of
    several turns of a session any could have been its anchor, which this does not count.
    `anchor` is what components that need no user gave that trace under the reward spec `spec`, by component.
    """

    size: int = Field(ge=1)
    propensity: float = Field(gt=0.0, le=1.0)
    anchor: dict[Name, Annotated[float, Field(ge=0.0, le=1.0)]] = {}
    spec: str = ""


class Assignment(Frozen):
    """The arm a session was given, in which trial (a candidate's version number), with what probability.

    `replay_of` is the trace whose prompt was asked again, with no user behind it: what serves it is judged by the
    answer, and the answer is no conversation that anybody had. Where the replay lane asked, it is one answer of its
    `group`, and may train; a trial's replays never do. `block` is the number, within the trial, of the stretch of time
    in which every engine serves one arm, where arms take turns on the same engines: the coin was the block's.
    """

    arm: Arm = Arm.STABLE
    trial: int | None = None
    propensity: float = Field(1.0, gt=0.0, le=1.0)
    replay_of: Name | None = None
    block: int | None = Field(None, ge=0)
    group: Group | None = None

    @model_validator(mode="after")
    def _a_group_has_an_anchor_and_no_trial(self) -> "Assignment":
        if self.group is not None and (self.replay_of is None or self.trial is not None):
            told = f"replay_of {self.replay_of!r}, trial {self.trial}"
            raise ValueError(f"a group is of a trace that was asked again, in no trial; got {told}")
        return self

    @property
    def is_of_a_check(self) -> bool:
        """Whether a trial's check asked again: such an answer never trains."""
        return self.replay_of is not None and self.group is None


class Sampling(Frozen):
    """How reply tokens were drawn."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = None


class Prefix(Frozen):
    """What a trace does not store because trace `parent` of its session has it.

    The first `num_tokens` of its prompt are those of the parent's prompt and reply, the first `num_messages` entries
    of its request's list of messages are the parent's, and so are the request's fields `same`. `digest` is the
    parent's, as it is stored; see `ingest.records.prefixes`.
    """

    parent: Name
    digest: str
    num_tokens: int = Field(ge=0)
    num_messages: int = Field(ge=0)
    same: tuple[str, ...] = ()


class Trace(Record):
    """One completion as production served it.

    `user` is a keyed pseudonym, empty where the client named nobody. `redacted` counts what was replaced in its texts,
    by kind, and `is_reply_altered` says whether its reply was among them. With a `prefix`, `request` and
    `prompt_token_ids` are what is left of them without it. `logprobs[i]` is the log-probability, in nats, of
    `token_ids[i]` under the weights that sampled it, before temperature and truncation. `spans` tile
    `[0, len(token_ids))`, or are empty when the weights of an aborted reply are unknown.
    """

    SCHEMA = "trace"
    VERSION = 5

    trace_id: Name
    session_id: Name
    parent_session_id: str | None = Field(None, description="the session whose agent started this one's")
    tenant: str
    user: str = ""
    consent: Consent = Consent.ASSUMED
    assignment: Assignment
    engine_id: str
    kind: TurnKind
    endpoint: str
    model: str
    prefix: Prefix | None = None
    redacted: dict[str, int] = {}
    is_reply_altered: bool = False
    request: dict[str, Any]
    reply_text: str
    streamed: bool
    status: int
    prompt_token_ids: TokenIds
    token_ids: TokenIds
    logprobs: Logprobs
    spans: tuple[VersionSpan, ...]
    sampling: Sampling
    finish_reason: str
    started_at: float
    finished_at: float

    @model_validator(mode="after")
    def _aligned(self) -> "Trace":
        check_aligned(self.token_ids, self.logprobs, self.spans)
        return self


def check_aligned(token_ids: TokenIds, logprobs: Logprobs, spans: tuple[VersionSpan, ...]) -> None:
    """What is said of a reply's tokens is said of all of them. Raises `ValueError`."""
    num_tokens = len(token_ids)
    if len(logprobs) != num_tokens:
        raise ValueError(f"a log-probability per reply token: {num_tokens} tokens, {len(logprobs)} values")
    _check_tiling(spans, num_tokens)


def _check_tiling(spans: tuple[VersionSpan, ...], length: int) -> None:
    if not spans or (len(spans) == 1 and spans[0].start == 0 and spans[0].end == length):
        return
    edges = [spans[0].start, *(span.end for span in spans)]
    joined = all(a.end == b.start for a, b in pairwise(spans))
    if not joined or edges[0] != 0 or edges[-1] != length:
        raise ValueError(f"version spans must tile [0, {length}), got {[(s.start, s.end) for s in spans]}")


class Feedback(Record):
    """A user's or a system's signal about a trace or a session. `value` lies in [-1, 1]."""

    SCHEMA = "feedback"
    VERSION = 2

    feedback_id: Name
    trace_id: str | None = None
    session_id: str | None = None
    tenant: str
    user: str = ""
    name: Name = "thumb"
    value: float = Field(ge=-1.0, le=1.0)
    comment: str = Field("", max_length=10_000)
    redacted: dict[str, int] = {}
    at: float

    @model_validator(mode="after")
    def _about_something(self) -> "Feedback":
        if not self.trace_id and not self.session_id:
            raise ValueError("feedback must name a trace or a session")
        return self


class Segment(Frozen):
    """Tokens `[start, end)` of a chain were sampled in trace `trace_id`; the rest of a chain is context."""

    trace_id: str
    start: int
    end: int
    logprobs: Logprobs
    spans: tuple[VersionSpan, ...]


class Link(Frozen):
    """How a chain goes on from chain number `before` of its trajectory.

    `trace_id` is the turn that joins them: the summary that the new context quotes (compaction), the turn that was
    regenerated or whose conversation was edited (branch), or the newest turn whose reply the new context restates in
    other tokens (rewrite). `coverage` is the share of that turn's reply found in the new context, in [0, 1], and
    `message` the number of the message, in the first request of the new chain, that holds it.
    """

    kind: LinkKind
    before: int = Field(ge=0)
    trace_id: str
    coverage: float = Field(1.0, ge=0.0, le=1.0)
    message: int | None = Field(None, ge=0)


class Chain(Frozen):
    """Turns joined by exact token prefix: each turn's prompt begins with all tokens before it.

    The first `shared` tokens are those of chain number `base` of the same trajectory and are not stored again:
    `token_ids` are the rest. Positions in `segments` count from the whole chain's first token. See
    `ingest.sessions.chains.whole`.
    """

    token_ids: TokenIds
    segments: tuple[Segment, ...]
    base: int | None = Field(None, ge=0)
    shared: int = Field(0, ge=0)
    link: Link | None = Field(None, description="none: it begins on its own, as far as its traces tell")
    marks: tuple[ChainMark, ...] = ()


class ToolCall(Frozen):
    """A call of a tool, as an assistant message makes it. `arguments` is JSON text, exactly as given."""

    name: str
    arguments: str
    call_id: str = ""


class ChatMessage(Frozen):
    """One message of a request. `call_id` names the tool call that a `tool` message answers."""

    role: str
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


class Turn(Frozen):
    """What a scorer may read of one trace. `context` is the request's last message, `followup` the next one.

    `messages` are those of the request that its `parent`'s request and reply do not hold already; with no parent, all
    of them. `tool_calls` are the reply's. `tools` is the JSON text of the tools that the request offers, empty where
    there are none or they are the parent's. See `ingest.sessions.history`. `offset` is where its trace lies, in the
    trajectory's partition of `traces`; `at` is when its reply ended and `took_s` how long that was after its request;
    `is_altered` means that something in its request or its reply was redacted, `is_reply_altered` that its reply was.
    """

    trace_id: str
    offset: int | None = Field(None, ge=0)
    kind: TurnKind
    is_altered: bool = False
    is_reply_altered: bool = False
    parent: str | None = Field(None, description="trace id of the turn whose conversation this one goes on from")
    messages: tuple[ChatMessage, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tools: str = ""
    context: str
    reply: str
    followup: str | None
    finish_reason: str
    status: int
    num_tokens: int
    versions: tuple[int, ...]
    at: float
    took_s: float | None = Field(None, description="none in trajectories before this was told")


class Trajectory(Record):
    """A closed session. Late feedback issues it again with a higher `revision`: the same turns, more feedback."""

    SCHEMA = "trajectory"
    VERSION = 5

    trajectory_id: Name
    revision: int = Field(1, ge=1)
    partition: int | None = Field(None, ge=0, description="of `traces`, where its turns' `offset` count")
    session_id: Name
    parent_session_id: str | None = Field(None, description="the session whose agent started this one's")
    tenant: str
    user: str = ""
    consent: Consent = Consent.ASSUMED
    assignment: Assignment | None = Field(
        description="none when the session saw more than one; where arms take turns, the one it began with"
    )
    held_out: bool
    closed: CloseReason
    opened_at: float
    closed_at: float
    turns: tuple[Turn, ...]
    chains: tuple[Chain, ...]
    feedback: tuple[Feedback, ...]

    @model_validator(mode="after")
    def _bases_hold_what_is_shared(self) -> "Trajectory":
        lengths: list[int] = []
        for number, chain in enumerate(self.chains):
            has = 0 if chain.base is None else lengths[chain.base] if chain.base < number else -1
            if chain.shared > has:
                raise ValueError(f"chain {number}: an earlier chain must hold its {chain.shared} shared tokens")
            lengths.append(chain.shared + len(chain.token_ids))
        return self


class Component(Frozen):
    """One scorer's number in [0, 1] for a turn, or why there is none. Unscored is not zero."""

    name: str
    scorer: str
    trace_id: str
    value: float | None
    unscored: str | None = None


class Part(Frozen):
    """What one component adds to a turn's reward, after factors and credit; `weight` is after annealing."""

    name: str
    weight: float = Field(ge=0.0)
    value: float = Field(ge=0.0, le=1.0)


class TurnReward(Frozen):
    """The reward of one turn: the weighted mean of its parts, `None` when it has none.

    The trainer normalises each part on its own before it sums them, so it reads `parts`; records of version 1 have
    none, and their `value` is the only part. `alone` are the parts as they would be without what only a user could
    say, and without credit, which a replay of the turn's prompt can be compared by.
    """

    trace_id: str
    kind: TurnKind = TurnKind.MAIN
    value: float | None
    parts: tuple[Part, ...] = ()
    alone: tuple[Part, ...] | None = Field(
        None, description="none: it cannot be asked again, or another turn of its session is"
    )


class Source(Frozen):
    """Where a trajectory lies on its topic."""

    partition: int = Field(ge=0)
    offset: int = Field(ge=0)


class Reward(Record):
    """A trajectory's score: per turn for the trainer, per session for the gate.

    It refers to its trajectory by `source` and repeats what the gate and the audit need of it. Records of versions 1
    and 2 hold their `trajectory` instead; `ingest.log.trajectories` reads both. `trace_ids` are its turns, in order;
    `versions` those that served them; `ended_at` is when its last reply was whole.
    """

    SCHEMA = "reward"
    VERSION = 5

    reward_id: Name
    trajectory_id: Name
    revision: int = Field(1, ge=1)
    session_id: Name
    tenant: str
    user: str = ""
    assignment: Assignment | None
    held_out: bool
    opened_at: float
    ended_at: float | None = None
    trace_ids: tuple[str, ...]
    versions: tuple[int, ...]
    spec: str
    components: tuple[Component, ...]
    turns: tuple[TurnReward, ...]
    value: float = Field(ge=0.0, le=1.0)
    has_signal: bool = Field(description="some component scored some turn; else `value` is the spec's price of silence")
    guardrails: dict[str, float]
    source: Source | None = None
    trajectory: Trajectory | None = None
    at: float

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_version(cls, given: Any) -> Any:
        """Versions 1 and 2 said all this in their trajectory only."""
        if not isinstance(given, dict) or "trace_ids" in given or not isinstance(given.get("trajectory"), dict):
            return given
        whole = Trajectory.model_validate(given["trajectory"])
        return {**given, "trajectory": whole, **about(whole), "turns": _with_kinds(given.get("turns"), whole)}

    @model_validator(mode="after")
    def _has_a_trajectory(self) -> "Reward":
        if (self.source is None) is (self.trajectory is None):
            raise ValueError("either where its trajectory lies, or the trajectory itself")
        return self


def about(trajectory: Trajectory) -> dict[str, Any]:
    """What a reward repeats of its trajectory."""
    return {
        "tenant": trajectory.tenant,
        "user": trajectory.user,
        "assignment": trajectory.assignment,
        "held_out": trajectory.held_out,
        "opened_at": trajectory.opened_at,
        "ended_at": max((turn.at for turn in trajectory.turns), default=trajectory.opened_at),
        "trace_ids": tuple(turn.trace_id for turn in trajectory.turns),
        "versions": tuple(dict.fromkeys(version for turn in trajectory.turns for version in turn.versions)),
    }


def _with_kinds(turns: Any, trajectory: Trajectory) -> Any:
    if not isinstance(turns, list):
        return turns
    kinds = {turn.trace_id: turn.kind for turn in trajectory.turns}
    return [{**turn, "kind": kinds.get(turn.get("trace_id"), TurnKind.MAIN)} for turn in turns]


class FileEntry(Frozen):
    """A file of a version, as every reader must find it."""

    name: str
    bytes: int
    sha256: str


class Version(Record):
    """A version's manifest: it exists in the store once this can be read there.

    Where it names a `base`, its files are adapters of that version's weights: `ingest.store.adapters`.
    """

    SCHEMA = "version"
    VERSION = 2

    version: int = Field(ge=0)
    digest: str
    parent: int | None
    parent_digest: str | None
    base: int | None = None
    base_digest: str | None = None
    files: tuple[FileEntry, ...]
    lineage: dict[str, Any]
    metrics: dict[str, float]
    created_at: float

    @model_validator(mode="after")
    def _a_base_came_before(self) -> "Version":
        if (self.base is None) != (self.base_digest is None):
            raise ValueError(f"a base has a digest, got base {self.base} with {self.base_digest}")
        if self.base is not None and self.base >= self.version:
            raise ValueError(f"the base of version {self.version} came before it, got {self.base}")
        return self

    @property
    def folder(self) -> str:
        """Where the version lies, below the store's root."""
        return f"versions/{self.version:06d}-{self.digest[:12]}"


class Release(Record):
    """An entry in the release log: the only thing that changes what is served.

    `engines` maps an engine to the version it shall serve; `numbers` are what the decision was made on, and
    `reason` is one sentence for an operator. `epoch` fences writers: a reader skips entries of an epoch older
    than one it has seen. `holdback` is the version that a `share` of sessions stays on while the promoted one is
    watched. `block` is the one that begins with this entry, of a trial whose arms take turns on the same engines; none
    where no block goes on. `author` is who asked for it, empty where the controller decided.
    """

    SCHEMA = "release"
    VERSION = 2

    release: int
    epoch: int
    kind: ReleaseKind
    stable: int
    candidate: int | None = None
    state: TrialState | None = None
    share: float = Field(0.0, ge=0.0, lt=1.0)
    salt: str = ""
    engines: dict[str, int] = {}
    holdback: int | None = None
    block: int | None = Field(None, ge=0)
    mode: Mode = Mode.OPEN
    author: str = ""
    numbers: dict[str, float] = {}
    reason: str
    at: float


class Fate(Record):
    """How traces of one session ended that ended alike."""

    SCHEMA = "fate"
    VERSION = 2

    trace_ids: tuple[Name, ...] = Field(min_length=1)
    kind: FateKind
    version: int | None = None
    reason: str
    at: float

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, given: Any) -> Any:
        """It was of one trace."""
        if not isinstance(given, dict) or "trace_id" not in given:
            return given
        return {
            "trace_ids": [given["trace_id"]],
            **{name: value for name, value in given.items() if name != "trace_id"},
        }


AnyRecord = TypeVar("AnyRecord", bound=Record)


@lru_cache(maxsize=4096)  # a stage asks of each record several times over
def session_key(session_id: str) -> str:
    """Sixteen hex digits that stand for a session: the partition key of everything about it."""
    return hashlib.blake2b(session_id.encode(), digest_size=8).hexdigest()


def key_of(*, session_id: str | None, trace_id: str | None) -> str:
    """The partition key, from the session or, trace ids beginning with it, from a trace."""
    if session_id:
        return session_key(session_id)
    return (trace_id or "").partition("-")[0]


def content_id(*parts: str) -> str:
    """A deterministic id: the same parts give the same id in every process."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


def versions_of(spans: Sequence[VersionSpan]) -> tuple[int, ...]:
    """Distinct versions, in the order they sampled."""
    return (spans[0].version,) if len(spans) == 1 else tuple(dict.fromkeys([span.version for span in spans]))
