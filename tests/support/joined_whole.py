"""Chains and turns of a session as they are made of whole traces: what `ingest.sessions` must make of stored ones.

The plain way, kept to compare with: every trace has all of its tokens and messages, each is compared with all before
it, and everything made is validated. What it costs grows with the square of a session.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ingest.records.events import (
    Chain,
    ChainMark,
    ChatMessage,
    Link,
    LinkKind,
    Segment,
    ToolCall,
    Trace,
    Turn,
    TurnKind,
    versions_of,
)
from ingest.records.packing import TokenIds
from ingest.sessions.chains import Flaws, in_order
from ingest.sessions.links import takes_part
from ingest.sessions.messages import ASSISTANT, PREAMBLE, USER, Key, calls_in, key_of, messages_of, reply_key, tools_of
from ingest.sessions.quotes import Quote, Reply, Text, stands_before
from ingest.sessions.readings import Joint


@dataclass
class Reading:
    """What is known of one turn: its messages, its place, its kind, and the calls its reply made.

    `unknown` is whether its own messages hold a reply that no turn of the session gave.
    """

    trace: Trace
    messages: tuple[ChatMessage, ...]
    keys: tuple[Key, ...]
    kind: TurnKind
    tool_calls: tuple[ToolCall, ...]
    parent: str | None = None
    joint: Joint | None = None
    num_kept: int = 0
    is_continued: bool = False
    unknown: bool = False

    @cached_property
    def reply(self) -> Reply:
        return Reply(self.trace.reply_text, self.trace.kind is TurnKind.SUMMARY)

    @cached_property
    def texts(self) -> list[Text]:
        """The messages, as texts that may quote."""
        return [Text(message.text) for message in self.messages]

    @property
    def asked(self) -> str:
        """What it answered: the text of its last message."""
        return self.messages[-1].text if self.messages else ""

    @property
    def new_messages(self) -> tuple[ChatMessage, ...]:
        """Those that its parent's request and reply do not hold."""
        return self.messages[self.num_kept :]


@dataclass
class _Found:
    """Where a reply is quoted in a request: message number, and the quote."""

    message: int
    quote: Quote
    is_in_place: bool


@dataclass
class Lineage:
    """The turns of a session in the order they began, read one after the other."""

    readings: dict[str, Reading] = field(default_factory=dict)
    _heads: dict[tuple[Key, ...], str] = field(default_factory=dict)  # request and reply -> the turn
    _said: dict[Key, Reading] = field(default_factory=dict)  # a reply -> the last turn that gave it
    _earlier: list[Reading] = field(default_factory=list)  # those that take part
    _seen: set[Key] = field(default_factory=set)

    def read(self, trace: Trace, extends: str | None) -> Reading:
        """Take the next trace; `extends` is the newest turn of the chain that its prompt extends, token for token."""
        messages = messages_of(trace.request)
        reading = Reading(trace, messages, tuple(map(key_of, messages)), trace.kind, calls_in(trace.reply_text))
        self._place(reading, extends)
        if takes_part(trace):
            if extends is None:
                reading.joint = self._joint(reading, self._earlier)
            reading.unknown = self._holds_unknown(reading)
            self._remember(reading)
        self.readings[trace.trace_id] = reading
        return reading

    def _place(self, reading: Reading, extends: str | None) -> None:
        """Find the parent, and let the quotation tell which tools its reply called."""
        for end in range(len(reading.keys) - 1, 0, -1):
            if reading.keys[end - 1][0] == ASSISTANT and (known := self._heads.get(reading.keys[:end])):
                reading.parent, reading.num_kept = known, end
                break
        if extends is not None and reading.parent is None:
            self._extend(reading, self.readings[extends])
        if reading.parent is not None and reading.num_kept:
            parent, quoted = self.readings[reading.parent], reading.messages[reading.num_kept - 1]
            if quoted.tool_calls and takes_part(reading.trace) and not parent.is_continued:
                parent.tool_calls = quoted.tool_calls

    def _extend(self, reading: Reading, before: Reading) -> None:
        """The tokens say it goes on from `before`: its reply stands there in other words, or only on the server."""
        kept = len(before.keys)
        if reading.keys[:kept] == before.keys and [key[0] for key in reading.keys[kept : kept + 1]] == [ASSISTANT]:
            reading.parent, reading.num_kept = before.trace.trace_id, kept + 1
        elif reading.trace.request.get("previous_response_id"):
            reading.parent = before.trace.trace_id

    def _remember(self, reading: Reading) -> None:
        if reading.parent is not None:
            self.readings[reading.parent].is_continued = True
        said = reply_key(reading.trace.reply_text)
        self._heads[(*reading.keys, said)] = reading.trace.trace_id
        self._said[said] = reading
        self._seen.update(reading.keys[max(0, reading.num_kept - 1) :])  # before that, its parent's
        self._earlier.append(reading)

    # -- links

    def _joint(self, reading: Reading, earlier: Sequence[Reading]) -> Joint | None:
        twin = next((other for other in earlier if other.keys == reading.keys and other.keys), None)
        if twin is not None:
            return Joint(LinkKind.BRANCH, twin.trace.trace_id)
        if reading.parent is not None:
            replaced = next((other for other in earlier if other.parent == reading.parent), None)
            if replaced is not None:
                return Joint(LinkKind.BRANCH, replaced.trace.trace_id)
            return Joint(LinkKind.REWRITE, reading.parent)
        return self._restart(reading, earlier)

    def _restart(self, reading: Reading, earlier: Sequence[Reading]) -> Joint | None:
        found = {other.trace.trace_id: list(_quotations(other, reading)) for other in earlier}
        kept = [name for name, quoted in found.items() if any(one.is_in_place for one in quoted)]
        explained = {one.message for quoted in found.values() for one in quoted if one.is_in_place}
        summaries = [
            (self.readings[name].trace.kind is TurnKind.SUMMARY, one.quote.coverage, number, name, one)
            for number, (name, quoted) in enumerate(found.items())
            for one in quoted
            if name not in kept
            and (one.message not in explained or self.readings[name].trace.kind is TurnKind.SUMMARY)
            and reading.keys[one.message] not in self._seen
        ]
        if summaries:
            _, coverage, _, name, one = max(summaries, key=lambda summary: summary[:3])
            self.readings[name].kind = TurnKind.SUMMARY
            return Joint(LinkKind.COMPACTION, name, coverage, one.message)
        if kept:
            return Joint(LinkKind.REWRITE, kept[-1], max(one.quote.coverage for one in found[kept[-1]]))
        return _reworded(reading, earlier) or _edited(reading, earlier)

    def _holds_unknown(self, reading: Reading) -> bool:
        """Whether a new message is a reply that no turn gave; the message that carries a summary is its client's."""
        carrier = reading.joint.message if reading.joint else None
        new = range(reading.num_kept, len(reading.messages))
        replies = [number for number in new if number != carrier and reading.messages[number].role == ASSISTANT]
        return any(
            reading.keys[number] not in self._said
            and reading.keys[number] not in self._seen
            and not any(other.reply.quoted_in(reading.texts[number]) for other in self._said.values())
            for number in replies
        )


def _quotations(other: Reading, reading: Reading) -> Iterator[_Found]:
    """Where `reading`'s request quotes the reply of an earlier turn."""
    for number, text in enumerate(reading.texts):
        quote = other.reply.quoted_in(text)
        if quote is None:
            continue
        before = reading.keys[number - 1] if number else None
        is_kept = bool(other.keys) and before == other.keys[-1]
        yield _Found(number, quote, is_kept or stands_before(other.asked, text, quote.at))


def _reworded(reading: Reading, earlier: Sequence[Reading]) -> Joint | None:
    """The newest turn whose request stands at the head, with a reply in other words than it gave."""
    for other in reversed(earlier):
        following = reading.keys[len(other.keys) :]
        if other.keys and reading.keys[: len(other.keys)] == other.keys and following and following[0][0] == ASSISTANT:
            return Joint(LinkKind.REWRITE, other.trace.trace_id, 0.0)
    return None


def _edited(reading: Reading, earlier: Iterable[Reading]) -> Joint | None:
    """The turn whose request it repeats but for the last message, if that is more than a system prompt."""
    kept = reading.keys[:-1]
    twin = next((other for other in earlier if other.keys[:-1] == kept and len(other.keys) == len(kept) + 1), None)
    is_more = any(key[0] not in PREAMBLE for key in kept)
    return Joint(LinkKind.BRANCH, twin.trace.trace_id) if twin is not None and is_more else None


@dataclass(frozen=True)
class Joined:
    """A session's chains, and what was read of each turn."""

    chains: tuple[Chain, ...]
    readings: dict[str, Reading]


@dataclass
class _Growing:
    """A chain while traces are still being laid on it."""

    token_ids: TokenIds = field(default_factory=TokenIds)
    segments: list[Segment] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)

    def lay(self, trace: Trace, reading: Reading) -> None:
        start = len(trace.prompt_token_ids)
        self.token_ids = trace.prompt_token_ids + trace.token_ids
        self.readings.append(reading)
        self.segments.append(
            Segment(
                trace_id=trace.trace_id,
                start=start,
                end=start + len(trace.token_ids),
                logprobs=trace.logprobs,
                spans=trace.spans,
            )
        )

    def marks(self, flaws: Flaws) -> tuple[ChainMark, ...]:
        held = {segment.trace_id for segment in self.segments}
        wrong = {
            ChainMark.MISSING: any(reading.unknown for reading in self.readings),
            ChainMark.LATE: not held.isdisjoint(flaws.late),
            ChainMark.DUPLICATED: not held.isdisjoint(flaws.duplicated),
        }
        return tuple(mark for mark, is_so in wrong.items() if is_so)


def join(traces: Iterable[Trace], flaws: Flaws | None = None) -> Joined:
    """The chains of one session's traces, in the order they began, linked and marked.

    `Segment.start` and `end` are positions in the chain; `logprobs` and `spans` are the trace's own, so a span
    `[a, b)` covers the chain's tokens `[start + a, start + b)`. Side turns are never trained and traces without
    reply tokens have nothing to train: neither gives a segment.
    """
    lineage, growing = Lineage(), list[_Growing]()
    for trace in in_order(traces):
        if not takes_part(trace):
            lineage.read(trace, None)
            continue
        chain = _longest_prefix(growing, trace.prompt_token_ids)
        reading = lineage.read(trace, chain.segments[-1].trace_id if chain else None)
        if chain is None:
            chain = _Growing()
            growing.append(chain)
        chain.lay(trace, reading)
    return Joined(_stored(growing, flaws or Flaws()), lineage.readings)


def _longest_prefix(chains: list[_Growing], prompt: TokenIds) -> _Growing | None:
    fitting = [chain for chain in reversed(chains) if prompt.words.startswith(chain.token_ids.words)]
    return max(fitting, key=lambda chain: len(chain.token_ids), default=None)


def _stored(growing: Sequence[_Growing], flaws: Flaws) -> tuple[Chain, ...]:
    chain_of = {segment.trace_id: number for number, chain in enumerate(growing) for segment in chain.segments}
    chains = []
    for number, chain in enumerate(growing):
        common = [chain.token_ids.num_common(other.token_ids) for other in growing[:number]]
        shared = max(common, default=0)
        chains.append(
            Chain(
                token_ids=chain.token_ids[shared:],
                segments=tuple(chain.segments),
                base=common.index(shared) if shared else None,
                shared=shared,
                link=_link(chain, chain_of),
                marks=chain.marks(flaws),
            )
        )
    return tuple(chains)


def _link(chain: _Growing, chain_of: dict[str, int]) -> Link | None:
    joint = chain.readings[0].joint
    if joint is None or joint.trace_id not in chain_of:
        return None
    return Link(
        kind=joint.kind,
        before=chain_of[joint.trace_id],
        trace_id=joint.trace_id,
        coverage=joint.coverage,
        message=joint.message,
    )


def build(readings: Mapping[str, Reading], offsets: Mapping[str, int]) -> tuple[Turn, ...]:
    """A turn per trace, in the order they began; `offsets` tell where the traces lie."""
    followups = _followups(readings)
    return tuple(_turn(reading, readings, followups.get(name), offsets.get(name)) for name, reading in readings.items())


def _turn(reading: Reading, readings: Mapping[str, Reading], followup: str | None, offset: int | None) -> Turn:
    trace = reading.trace
    return Turn(
        trace_id=trace.trace_id,
        offset=offset,
        kind=reading.kind,
        is_altered=bool(trace.redacted),
        is_reply_altered=trace.is_reply_altered,
        parent=reading.parent,
        messages=reading.new_messages,
        tool_calls=reading.tool_calls,
        tools=_tools(trace, readings.get(reading.parent or "")),
        context=reading.asked,
        reply=trace.reply_text,
        followup=followup,
        finish_reason=trace.finish_reason,
        status=trace.status,
        num_tokens=len(trace.token_ids),
        versions=versions_of(trace.spans),
        at=trace.finished_at,
        took_s=trace.finished_at - trace.started_at,
    )


def _tools(trace: Trace, parent: Reading | None) -> str:
    tools = tools_of(trace.request.get("tools"))
    return "" if parent is not None and tools == tools_of(parent.trace.request.get("tools")) else tools


def _followups(readings: Mapping[str, Reading]) -> dict[str, str]:
    """Trace id -> the user's next words, for turns that a later one goes on from. The first to go on counts."""
    found: dict[str, str] = {}
    for reading in readings.values():
        before = _before(reading)
        words = [message.text for message in reading.new_messages if message.role == USER]
        if reading.trace.kind is TurnKind.MAIN and before and words:
            found.setdefault(before, words[-1])
    return found


def _before(reading: Reading) -> str | None:
    if reading.parent is None and reading.joint is not None and reading.joint.kind is LinkKind.REWRITE:
        return reading.joint.trace_id
    return reading.parent
