"""What this engine captured lately, so that a session's next turn is stored without what its turns before hold."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ingest.records import prefixes
from ingest.records.events import Trace
from ingest.records.prefixes import Outline

_NUM_TURNS = 8  # of a session: its last turns, and those of agents that run side by side in it


@dataclass(frozen=True)
class _Turn:
    outline: Outline
    digest: str  # of the value it was written as
    since: float  # when the whole trace was captured that its line of prefixes begins with
    redacted: Mapping[str, int]  # in the whole trace


class Recent:
    """Captured traces by session, `max_bytes` of them at most; the session longest unheard goes first.

    A line of prefixes is ended, and the next turn stored whole, once its first trace is older than `max_age_s`: what
    has to be read together then lies close together.
    """

    def __init__(self, max_bytes: int, max_age_s: float) -> None:
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        self._sessions: OrderedDict[str, deque[_Turn]] = OrderedDict()
        self._num_bytes = 0

    def store(self, trace: Trace, write: Callable[[Trace], bytes | None]) -> None:
        """Let `write` write a trace without what the best of its session's turns has, whole where none helps.

        The trace is whole, and redacted already: a cut before that could part a private value.
        `write` returns the value that was written; where none was, no later trace may lean on this one.
        """
        outline = Outline.of(trace)
        best, num_tokens = None, 0
        for turn in self._sessions.get(trace.session_id, ()):
            num = turn.outline.num_tokens_in(outline.prompt)
            if num >= max(1, num_tokens) and trace.finished_at - turn.since <= self._max_age_s:
                best, num_tokens = turn, num
        if best is None:
            value, since = write(trace), trace.finished_at
        else:
            cut = prefixes.cut(trace, outline, best.outline, best.digest, num_tokens)
            own = Counter(trace.redacted) - Counter(best.redacted)
            value, since = write(cut.model_copy(update={"redacted": dict(own)})), best.since
        if value is not None:
            self._add(trace.session_id, _Turn(outline, prefixes.digest(value), since, trace.redacted))

    def _add(self, session_id: str, turn: _Turn) -> None:
        turns = self._sessions.setdefault(session_id, deque())
        self._sessions.move_to_end(session_id)
        turns.append(turn)
        self._num_bytes += turn.outline.num_bytes
        if len(turns) > _NUM_TURNS:
            self._num_bytes -= turns.popleft().outline.num_bytes
        while self._num_bytes > self._max_bytes:
            _, oldest = self._sessions.popitem(last=False)
            self._num_bytes -= sum(turn.outline.num_bytes for turn in oldest)
