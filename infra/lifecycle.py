"""Stopping, waiting, and trying again."""

import atexit
import gc
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

_LOOK_S = 0.2
_NEW_OBJECTS = 1_000_000  # and not 700; a tenth of a second each time
_FEW_NEW_OBJECTS = 50_000  # a few milliseconds each time, and a few megabytes


class Pulse:
    """When a process's main loop last turned, and what keeps it from its work: what `infra.health` tells.

    Side threads do not beat: that they live says nothing of the main loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: float | None = None
        self.trouble = ""

    def beat(self, trouble: str = "") -> None:
        """A turn of the main loop, at its work or in `trouble`, such as waiting for a broker."""
        self._at, self.trouble = self._clock(), trouble

    def go_on(self) -> None:
        """Still at the same turn, which is a long one; nothing before the first."""
        if self._at is not None:
            self._at = self._clock()

    @property
    def has_begun(self) -> bool:
        """The main loop has turned at all."""
        return self._at is not None

    def age_s(self) -> float:
        """Seconds since the last beat; none before the first."""
        return 0.0 if self._at is None else self._clock() - self._at


class Stop:
    """Set once by SIGTERM or SIGINT; loops look at it and waits end early. The main loop beats its `pulse`."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.pulse = Pulse()

    @classmethod
    def on_signals(cls) -> "Stop":
        """A `Stop` that this process's SIGTERM and SIGINT set."""
        stop = cls()
        stop.heed_signals()
        return stop

    def heed_signals(self) -> None:
        """Be set by this process's SIGTERM and SIGINT from now on."""

        def handler(_number: int, _frame: FrameType | None) -> None:
            self.set()

        signal.signal(signal.SIGTERM, handler)
        signal.signal(signal.SIGINT, handler)

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait, or return early and `True` when stopped."""
        return self._event.wait(seconds)


def run_until_stopped(work: Callable[[], None], stop: Stop, end_s: float) -> bool:
    """Run `work`, which looks at `stop`, and give it `end_s` to return once that is set. `False`: it did not.

    For work with waits that nothing can end: it is left to its thread, which ends with the process. Raises what `work`
    raises.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - raised where it was asked for
            failed.append(exc)

    thread = threading.Thread(target=run, name="work", daemon=True)
    thread.start()
    while thread.is_alive() and not stop.wait(_LOOK_S):
        pass
    thread.join(end_s)
    if failed:
        raise failed[0]
    return not thread.is_alive()


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


def steady_time(
    wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
) -> Callable[[], float]:
    """A clock of Unix time that goes on evenly from now, whatever the machine's clock is set to meanwhile."""
    ahead = wall() - monotonic()
    return lambda: ahead + monotonic()


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


def collect_briefly() -> None:
    """Have the collector of reference cycles look seldom, for some milliseconds, and at those of the start never again.

    For processes that serve: else every request pays for it, and now and then one waits while it looks at everything
    that was imported.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_FEW_NEW_OBJECTS, 10, 10)


def collect_little() -> None:
    """Have the collector of reference cycles look at new objects seldom, and at none when the process ends.

    For commands: what they import, some 60,000 objects, is in use to the end, and looking for cycles in it takes a
    fifth of the time of a short one.
    """
    gc.set_threshold(_FEW_NEW_OBJECTS, 10, 10)
    atexit.unregister(gc.freeze)  # once is enough
    atexit.register(gc.freeze)
