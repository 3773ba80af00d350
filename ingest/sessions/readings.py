"""Turns as they are read: of a trace that leans on an earlier one, only what it says anew.

A stored trace leaves out what another of its session has (`ingest.records.prefixes`). Where that one was read before
and is leant on message by message, its reading is gone on from, so that a session costs what it says and not the
square of it. Every other trace is made whole first and read from its beginning: both ways read the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ingest.records import prefixes
from ingest.records.events import ChatMessage, LinkKind, ToolCall, TurnKind
from ingest.records.prefixes import AnyPrefix, Wholes
from ingest.sessions.held import AnyTrace
from ingest.sessions.messages import Key, key_of, messages_of, read_part
from ingest.sessions.quotes import Reply, Text
from ingest.sessions.threads import Thread, Threads

ReadPart = Callable[[Any], list[ChatMessage]]


@dataclass(frozen=True)
class Joint:
    """A link between turns; `ingest.records.events.Link` is the same between chains."""

    kind: LinkKind
    trace_id: str
    coverage: float = 1.0
    message: int | None = None


class Read(NamedTuple):
    """A request as it was read: `own` messages behind the first `num_before` of turn `before`.

    `request` has all fields but, where there is a turn before, the messages. `num_parts` are the entries of its list
    of messages, -1 where it has no list; `is_even` says that each of them is one message.
    """

    request: Mapping[str, Any]
    redacted: Mapping[str, int]
    thread: Thread
    own: Sequence[ChatMessage]
    before: "Reading | None" = None
    num_before: int = 0
    num_parts: int = -1
    is_even: bool = False


@dataclass(eq=False, slots=True)
class Reading:
    """What is known of one turn: its messages, its place, its kind, and the calls its reply made.

    `new_messages` are those that its parent's request and reply do not hold; `unknown` is whether they hold a reply
    that no turn of the session gave.
    """

    trace: AnyTrace
    read: Read
    thread: Thread
    kind: TurnKind
    tool_calls: tuple[ToolCall, ...]
    parent: str | None = None
    joint: Joint | None = None
    num_kept: int = 0
    new_messages: tuple[ChatMessage, ...] = ()
    is_continued: bool = False
    unknown: bool = False
    _reply: Reply | None = None
    _texts: list[Text] | None = None

    @property
    def reply(self) -> Reply:
        """Its reply, as one that may be quoted."""
        if self._reply is None:
            self._reply = Reply(self.trace.reply_text, self.trace.kind is TurnKind.SUMMARY)
        return self._reply

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """All messages of its request."""
        line: list[Read] = [self.read]
        while (before := line[-1].before) is not None:
            line.append(before.read)
        found: list[ChatMessage] = []
        for read in reversed(line):
            del found[read.num_before :]
            found += read.own
        return tuple(found)

    @property
    def texts(self) -> list[Text]:
        """The messages, as texts that may quote."""
        if self._texts is None:
            self._texts = [Text(message.text) for message in self.messages]
        return self._texts

    @property
    def asked(self) -> str:
        """What it answered: the text of its last message."""
        messages = self.read.own or self.messages
        return messages[-1].text if messages else ""

    def since(self, number: int) -> tuple[ChatMessage, ...]:
        """Its messages from `number` on."""
        read = self.read
        return tuple(read.own[number - read.num_before :] if number >= read.num_before else self.messages[number:])


class Requests:
    """Reads the requests of one session's traces, in the order they began."""

    def __init__(self, wholes: Wholes[AnyTrace]) -> None:
        self._wholes, self._threads = wholes, Threads()
        self._known: dict[int, list[ChatMessage]] = {}

    def read(self, trace: AnyTrace, readings: Mapping[str, Reading]) -> Read:
        """The request of the next trace; `readings` are those before it."""
        prefix = trace.prefix
        if prefix is None:
            return self._begin(trace.request, trace.redacted, read_part)
        before = readings.get(prefix.parent)
        read = self._go_on(trace, prefix, before) if before is not None else None
        if read is None:
            whole = self._wholes.whole(trace)
            read = self._begin(whole.request, whole.redacted, self._read_once)
        return read

    def _go_on(self, trace: AnyTrace, prefix: AnyPrefix, before: Reading) -> Read | None:
        """From where the trace before it is leant on; `None` where that cannot be told without making it whole."""
        request: Mapping[str, Any] = trace.request
        head, name, same, num_messages = before.read, prefixes.list_in(request), prefix.same, prefix.num_messages
        if same:
            if not prefixes.LISTS.isdisjoint(same):
                return None
            request = {**request, **{key: head.request.get(key) for key in same}}
        redacted = prefixes.redacted_in(trace.redacted, head.redacted)
        if name is None or not num_messages:
            return self._begin(request, redacted, read_part)
        parts, is_all = request[name], num_messages == head.num_parts
        is_between = is_all or (head.is_even and num_messages < head.num_parts)
        if not is_between or request.get("messages", request.get("input")) is not parts:
            return None
        thread = head.thread if is_all else head.thread.upto(num_messages)
        own, is_even = _read_all(parts, read_part)
        num_parts = num_messages + len(parts)
        on, is_even = self._on(thread, own), is_even and head.is_even
        return Read(request, redacted, on, own, before, thread.length, num_parts, is_even)

    def _begin(self, request: Mapping[str, Any], redacted: Mapping[str, int], read: ReadPart) -> Read:
        """A request that has all of its messages."""
        parts = request.get("messages", request.get("input"))
        if not isinstance(parts, list):
            own: Sequence[ChatMessage] = messages_of(request)
            return Read(request, redacted, self._on(self._threads.empty, own), own)
        own, is_even = _read_all(parts, read)
        return Read(request, redacted, self._on(self._threads.empty, own), own, num_parts=len(parts), is_even=is_even)

    def _on(self, thread: Thread, messages: Iterable[ChatMessage]) -> Thread:
        for message in messages:
            thread = self._threads.on(thread, key_of(message))
        return thread

    def answered(self, thread: Thread, key: Key) -> Thread:
        """A request's thread with its reply."""
        return self._threads.on(thread, key)

    def _read_once(self, part: Any) -> list[ChatMessage]:
        """Traces that lean on one another share objects, which are told apart by which they are: they live as long."""
        known = self._known.get(id(part))
        if known is None:
            known = self._known[id(part)] = read_part(part)
        return known


def _read_all(parts: Iterable[Any], read: ReadPart) -> tuple[list[ChatMessage], bool]:
    """The messages of a request's list, and whether each of its entries is one."""
    found: list[ChatMessage] = []
    is_even = True
    for part in parts:
        messages = read(part)
        is_even = is_even and len(messages) == 1
        found += messages
    return found, is_even
