"""How the turns of a session hang together, beyond exact token prefixes. Pure: traces in, lineage out.

A turn's *parent* is the earlier turn whose request and reply stand, message for message, at the head of its request:
of several the one that reaches furthest. A turn that begins a chain of its own (its prompt extends no chain token for
token) gets a link, by the first rule that fits:

    branch       it has the messages of an earlier turn (regenerated), or goes on from its parent where another turn
                 did (edited)
    rewrite      it has a parent, and is the first to go on from it: client or template wrote the history anew
    compaction   its context restarts, and a message that no earlier request had quotes an earlier reply: that turn is
                 the summary
    rewrite      it restates earlier turns in place (a window that moved on, a transcript for whoever summarises), or
                 goes on from a request of theirs with a reply in other words
    branch       it has the messages of an earlier turn but for the last, and more than a system prompt before that

A reply is quoted *in place* where what it answered stands right before it, as a message or inside the same text. That
is a turn that was kept, never a summary; and a message that keeps a turn is no evidence about any other, for models
repeat themselves, but for a declared summary: it may have copied what it should have summarised. A context *restarts*
where it has no parent: nothing that the model said is kept at its head. Of several summaries the one its client
declared is taken, else the best quoted, else the newest.

What cannot be told is left alone: a client that keeps the request for a summary together with the summary moved its
window; an edited first message is a new beginning; a short reply proves nothing. `x-onstream-turn: summary` tells.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ingest.records.events import ChatMessage, LinkKind, TurnKind
from ingest.sessions.held import AnyTrace
from ingest.sessions.messages import ASSISTANT, PREAMBLE, Key, calls_in, key_of, reply_key
from ingest.sessions.quotes import Quote, Text, stands_before
from ingest.sessions.readings import Joint, Reading, Requests


@dataclass
class _Found:
    """Where a reply is quoted in a request: message number, and the quote."""

    message: int
    quote: Quote
    is_in_place: bool


_SIDE, _SUMMARY = TurnKind.SIDE, TurnKind.SUMMARY


def takes_part(trace: AnyTrace) -> bool:
    """Side turns are beside the conversation, and a reply without tokens is nobody's words."""
    return trace.kind is not _SIDE and len(trace.token_ids) > 0


@dataclass
class Lineage:
    """The turns of a session in the order they began, read one after the other."""

    _requests: Requests
    readings: dict[str, Reading] = field(default_factory=dict)
    _said: dict[Key, Reading] = field(default_factory=dict)  # a reply -> the last turn that gave it
    _earlier: list[Reading] = field(default_factory=list)  # those that take part
    _seen: set[Key] = field(default_factory=set)

    def read(self, trace: AnyTrace, is_part: bool, extends: str | None = None) -> Reading:
        """Take the next trace; `extends` is the newest turn of the chain that its prompt extends, token for token."""
        read = self._requests.read(trace, self.readings)
        reading = Reading(trace, read, read.thread, trace.kind, calls_in(trace.reply_text))
        self._place(reading, extends, is_part)
        if is_part:
            if extends is None and self._earlier:
                reading.joint = self._joint(reading, self._earlier)
            reading.unknown = self._holds_unknown(reading)
            self._remember(reading)
        self.readings[trace.trace_id] = reading
        return reading

    def _place(self, reading: Reading, extends: str | None, is_part: bool) -> None:
        """Find the parent, and let the quotation tell which tools its reply called."""
        thread = reading.thread.above
        while thread is not None and thread.turn is None:
            thread = thread.above
        if thread is not None:
            reading.parent, reading.num_kept = thread.turn, thread.length
        if extends is not None and reading.parent is None:
            self._extend(reading, self.readings[extends])
        if reading.parent is None or not reading.num_kept:
            reading.new_messages = reading.since(reading.num_kept)
            return
        parent, kept = self.readings[reading.parent], reading.since(reading.num_kept - 1)
        quoted, reading.new_messages = kept[0], kept[1:]
        if is_part and not parent.is_continued and quoted.tool_calls:
            parent.tool_calls = quoted.tool_calls

    def _extend(self, reading: Reading, before: Reading) -> None:
        """The tokens say it goes on from `before`: its reply stands there in other words, or only on the server."""
        kept = before.thread.length
        following = reading.thread.upto(kept + 1)
        if following.above is before.thread and following.key[0] == ASSISTANT:
            reading.parent, reading.num_kept = before.trace.trace_id, kept + 1
        elif reading.read.request.get("previous_response_id"):
            reading.parent = before.trace.trace_id

    def _remember(self, reading: Reading) -> None:
        if reading.parent is not None:
            self.readings[reading.parent].is_continued = True
        said, thread = reply_key(reading.trace.reply_text), reading.thread
        self._requests.answered(thread, said).turn = reading.trace.trace_id
        self._said[said] = reading
        while thread.above is not None and thread.length >= reading.num_kept:  # before that, its parent's
            self._seen.add(thread.key)
            thread = thread.above
        self._earlier.append(reading)

    # -- links

    def _joint(self, reading: Reading, earlier: Sequence[Reading]) -> Joint | None:
        thread = reading.thread
        twin = next((other for other in earlier if other.thread is thread and thread.length), None)
        if twin is not None:
            return Joint(LinkKind.BRANCH, twin.trace.trace_id)
        if reading.parent is not None:
            replaced = next((other for other in earlier if other.parent == reading.parent), None)
            if replaced is not None:
                return Joint(LinkKind.BRANCH, replaced.trace.trace_id)
            return Joint(LinkKind.REWRITE, reading.parent)
        return self._restart(reading, earlier)

    def _restart(self, reading: Reading, earlier: Sequence[Reading]) -> Joint | None:
        keys = reading.thread.said()
        found = {other.trace.trace_id: list(_quotations(other, reading, keys)) for other in earlier}
        kept = [name for name, quoted in found.items() if any(one.is_in_place for one in quoted)]
        explained = {one.message for quoted in found.values() for one in quoted if one.is_in_place}
        summaries = [
            (self.readings[name].trace.kind is _SUMMARY, one.quote.coverage, number, name, one)
            for number, (name, quoted) in enumerate(found.items())
            for one in quoted
            if name not in kept
            and (one.message not in explained or self.readings[name].trace.kind is _SUMMARY)
            and keys[one.message] not in self._seen
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
        for number, message in enumerate(reading.new_messages, reading.num_kept):
            if message.role == ASSISTANT and number != carrier and self._is_unknown(message):
                return True
        return False

    def _is_unknown(self, message: ChatMessage) -> bool:
        key, text = key_of(message), Text(message.text)
        is_known = key in self._said or key in self._seen
        return not is_known and not any(other.reply.quoted_in(text) for other in self._said.values())


def _quotations(other: Reading, reading: Reading, keys: Sequence[Key]) -> Iterator[_Found]:
    """Where `reading`'s request, whose keys are given, quotes the reply of an earlier turn."""
    for number, text in enumerate(reading.texts):
        quote = other.reply.quoted_in(text)
        if quote is None:
            continue
        is_kept = bool(other.thread.length and number) and keys[number - 1] == other.thread.key
        yield _Found(number, quote, is_kept or stands_before(other.asked, text, quote.at))


def _reworded(reading: Reading, earlier: Sequence[Reading]) -> Joint | None:
    """The newest turn whose request stands at the head, with a reply in other words than it gave."""
    threads = {thread.above: thread.key[0] for thread in reading.thread.all() if thread.above is not None}
    for other in reversed(earlier):
        if other.thread.length and threads.get(other.thread) == ASSISTANT:
            return Joint(LinkKind.REWRITE, other.trace.trace_id, 0.0)
    return None


def _edited(reading: Reading, earlier: Iterable[Reading]) -> Joint | None:
    """The turn whose request it repeats but for the last message, if that is more than a system prompt."""
    kept = reading.thread.above
    if kept is None:
        return None
    twin = next((other for other in earlier if other.thread.above is kept), None)
    is_more = any(key[0] not in PREAMBLE for key in kept.said())
    return Joint(LinkKind.BRANCH, twin.trace.trace_id) if twin is not None and is_more else None
