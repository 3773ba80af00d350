"""Stopping, waiting, and trying again."""

import atexit
import gc
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

_NEW_OBJECTS = 1_000_000  # and not 700; a tenth of a second each time
_NEW_OBJECTS_OF_A_COMMAND = 50_000  # a few milliseconds each time, and a few megabytes


class Stop:
    """Set once by SIGTERM or SIGINT; loops look at it and waits end early."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @classmethod
    def on_signals(cls) -> "Stop":
        """A `Stop` that this process's SIGTERM and SIGINT set."""
        stop = cls()

        def handler(_number: int, _frame: FrameType | None) -> None:
            stop.set()

        signal.signal(signal.SIGTERM, handler)
        signal.signal(signal.SIGINT, handler)
        return stop

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait, or return early and `True` when stopped."""
        return self._event.wait(seconds)


@dataclass(frozen=True)
class Deadline:
    """One end for nested calls, on the monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        return cls(time.monotonic() + seconds)

    def left_s(self) -> float:
        return max(0.0, self.at - time.monotonic())

    def passed(self) -> bool:
        return time.monotonic() >= self.at


def backoff_s(first: float, most: float) -> Iterator[float]:
    """Waits that double from `first` to `most`, each within 20 % of its mark so that retries do not meet."""
    wait = first
    while True:
        yield wait * random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, guards nothing
        wait = min(most, wait * 2)


def collect_rarely() -> None:
    """Have the collector of reference cycles look at new objects seldom, and at those of the start never again.

    For processes that take many records in and hold them for long: nearly nothing of that is ever in a cycle, and
    looking for cycles in it takes a third of ingest's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 100)


def collect_little() -> None:
    """Have the collector of reference cycles look at new objects seldom, and at none when the process ends.

    For commands: what they import, some 60,000 objects, is in use to the end, and looking for cycles in it takes a
    fifth of the time of a short one.
    """
    gc.set_threshold(_NEW_OBJECTS_OF_A_COMMAND, 10, 10)
    atexit.unregister(gc.freeze)  # once is enough
    atexit.register(gc.freeze)
