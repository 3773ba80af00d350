"""Requests told apart by what their messages say, each message looked at once however many requests hold it. Pure."""

from collections.abc import Iterator

from ingest.sessions.messages import Key


class Thread:
    """A conversation up to some message. Two requests whose messages say the same end in the same object.

    `turn` is the newest turn whose request and reply it is, where there is one.
    """

    __slots__ = ("above", "key", "length", "number", "turn")

    def __init__(self, above: "Thread | None", key: Key, number: int) -> None:
        self.above, self.key, self.number = above, key, number
        self.length: int = 0 if above is None else above.length + 1
        self.turn: str | None = None

    def all(self) -> Iterator["Thread"]:
        """Itself and its beginnings, the longest first, the empty one last."""
        thread: Thread | None = self
        while thread is not None:
            yield thread
            thread = thread.above

    def upto(self, length: int) -> "Thread":
        """Its first `length` messages, or all where it has fewer."""
        thread = self
        while thread.length > length and thread.above is not None:
            thread = thread.above
        return thread

    def said(self, begin: int = 0) -> tuple[Key, ...]:
        """What its messages say, from number `begin` on."""
        found: list[Key] = []
        thread = self
        while thread.length > begin and thread.above is not None:
            found.append(thread.key)
            thread = thread.above
        return tuple(found[::-1])


class Threads:
    """The threads of one session."""

    def __init__(self) -> None:
        self.empty = Thread(None, ("", "", ()), 0)
        self._known: dict[tuple[int, Key], Thread] = {}

    def on(self, thread: Thread, key: Key) -> Thread:
        """`thread` and one message more."""
        found = self._known.get((thread.number, key))
        if found is None:
            found = self._known[thread.number, key] = Thread(thread, key, len(self._known) + 1)
        return found
