"""What telemetry does after a request and not in it.

A request only notes what there is to tell. Telling is many small calls, ours and the SDK's, which between two requests
find none of their code and data in the processor's caches and take three times as long as one after the other.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)

_EVERY_S = 0.2
_AT_ONCE = 128  # then the thread that serves may go on: this one has held Python's lock for half a millisecond
_REST_S = 0.0005
_PARTS = 8  # of what is left, that much at once: who rests beside a busy thread gets the lock back after 5 ms
_MAX_LEFT = 1 << 16  # of a process whose thread gets no time at all; the oldest are lost, and that is logged

Call = Callable[[], None]


class Later:
    """Calls that are left for a thread, in their order. Whoever reads what they tell of flushes first."""

    def __init__(self) -> None:
        self._left: deque[Call] = deque(maxlen=_MAX_LEFT)
        self._lock = threading.Lock()
        self.leave: Callable[[Call], None] = self._left.append

    def start(self) -> None:
        """Begin to do what is left, until the process ends."""
        threading.Thread(target=self._run, name="telemetry", daemon=True).start()

    def flush(self) -> None:
        """Do all that is left now."""
        while self._do(_AT_ONCE):
            pass

    def _run(self) -> None:
        while True:
            is_more = self._do(max(_AT_ONCE, len(self._left) // _PARTS))
            time.sleep(_REST_S if is_more else _EVERY_S)

    def _do(self, most: int) -> bool:
        """Do some; whether there may be more. What fails is logged: it keeps nothing else from being told."""
        with self._lock:
            if len(self._left) == self._left.maxlen:
                logger.warning("telemetry: the oldest spans and values are lost: there was no time to tell of them")
            for _ in range(most):
                try:
                    call = self._left.popleft()
                except IndexError:
                    return False
                try:
                    call()
                except Exception:  # exporters and users' processors may raise anything
                    logger.exception("telemetry: something is not told")
        return True


_held: Later | None = None  # as OpenTelemetry's own providers: one for the process


def install(later: Later | None) -> None:
    """Leave to `later` from now on; `None` is off."""
    global _held
    _held = later


def teller() -> Callable[[Call], None] | None:
    """What takes a call for later; `None` where nobody hears of what it tells."""
    return None if _held is None else _held.leave
