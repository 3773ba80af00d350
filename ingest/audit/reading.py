"""From the log to an account, in memory that does not grow with the log.

    1. read      the topics, first stage to last: what the books say of a trace is never older than the trace itself.
                 Facts go into heaps on disk; the partitions of a topic are shared out between processes
    2. account   for the heaps, side by side too, and add up

A small log is read in this process alone: to start others takes longer.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any, TypeVar

from infra.errors import StartError
from ingest.audit import heaps
from ingest.audit.account import Account, Limits, account
from ingest.audit.books import Books
from ingest.audit.sources import SOURCES
from ingest.audit.telling import Teller
from ingest.log.protocol import EventLog
from ingest.log.topics import FATES, FEEDBACK, REWARDS, TRACES, TRAJECTORIES

NUM_PROCESSES = 2
_WORTH_MESSAGES = 20_000
_SAY_EVERY = 2048  # messages
_LOOK_EVERY_S = 0.2

STEPS: tuple[tuple[str, ...], ...] = (
    (TRACES.name,),
    (FEEDBACK.name,),
    (TRAJECTORIES.name,),
    (REWARDS.name,),
    tuple(SOURCES),
    (FATES.name,),
)
"""Topics that are read together; the letters in one go, since later ones of them count."""

T = TypeVar("T")
OpenLog = Callable[[], EventLog]
Say = Callable[[str, int, int], object]
"""Hears what is being done, how much of it is done and of how much."""


def silent(_what: str, _done: int, _total: int) -> None:
    """For who need not hear it."""


def take(
    log: EventLog,
    limits: Limits,
    now: float,
    open_log: OpenLog | None = None,
    say: Say = silent,
) -> Account:
    """Account for everything on the log as of `now`, in Unix seconds.

    With `open_log`, which must be picklable, other processes open a log of their own and read a large one together.

    Raises:
        LogError: the log does not answer.
        StoreError: the heaps cannot be written.
        StartError: another process was ended from outside.
    """
    ends = {name: log.ends(name) for step in STEPS for name in step}
    total = sum(sum(found.values()) for found in ends.values())
    num_heaps = heaps.how_many(sum(ends[TRACES.name].values()))
    with heaps.scratch() as folder:
        job = _Job(folder, num_heaps, limits, now)
        if open_log is None or total < _WORTH_MESSAGES:
            return _alone(log, job, total, say)
        return _together(open_log, job, ends, say)


@dataclass(frozen=True)
class _Job:
    """What every process must know."""

    folder: Path
    num_heaps: int
    limits: Limits
    now: float

    @property
    def stop(self) -> Path:
        """Is there once the audit has given up."""
        return self.folder / "stop"

    def account(self, heap: int) -> Account:
        """2, for one heap."""
        books = Books()
        for fact in heaps.read(self.folder, heap):
            books.add(fact)
        return account(books, self.limits, self.now)


def spill(
    log: EventLog,
    names: Sequence[str],
    partitions: Collection[int] | None,
    writer: heaps.Writer,
    say: Callable[[int], object],
) -> int:
    """1, for some partitions of some topics (`None`: all). Returns how many messages there were; `say` hears it."""
    num = 0
    for name in names:
        teller = Teller(name)
        for message in log.replay(name, partitions=partitions):
            for fact in teller.facts(message):
                writer.add(fact)
            num += 1
            if num % _SAY_EVERY == 0:
                say(num)
    writer.flush()
    say(num)
    return num


def _alone(log: EventLog, job: _Job, total: int, say: Say) -> Account:
    done = 0
    for number, names in enumerate(STEPS):
        writer = heaps.Writer(job.folder, job.num_heaps, str(number))
        done += spill(log, names, None, writer, partial(_say_more, say, done, total))
    return reduce(add, map(job.account, range(job.num_heaps)))


def _say_more(say: Say, before: int, total: int, num: int) -> None:
    say("reading", before + num, total)


def _together(open_log: OpenLog, job: _Job, ends: dict[str, dict[int, int]], say: Say) -> Account:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(NUM_PROCESSES, context, _begin) as pool:
        try:
            _read_together(pool, open_log, job, ends, say)
            heaps_left = [pool.submit(job.account, heap) for heap in range(job.num_heaps)]
            accounts = _results(heaps_left, lambda: say("accounting", job.num_heaps - len(heaps_left), job.num_heaps))
            return reduce(add, accounts)
        except BrokenProcessPool as exc:
            raise StartError("audit: a process that reads the log for it was ended from outside") from exc
        except BaseException:  # also Ctrl-C: the processes must end before what they write into is removed
            job.stop.touch()
            pool.shutdown(cancel_futures=True)
            raise


def _read_together(
    pool: ProcessPoolExecutor, open_log: OpenLog, job: _Job, ends: dict[str, dict[int, int]], say: Say
) -> None:
    done, total = 0, sum(sum(found.values()) for found in ends.values())
    for number, names in enumerate(STEPS):
        shares = _shares(names, ends)
        tallies = [_Tally(job.folder / f"read-{number}-{share}", job.stop) for share in range(len(shares))]
        reading = [
            pool.submit(_read, open_log, job, names, partitions, f"{number}-{share}", tallies[share])
            for share, partitions in enumerate(shares)
        ]
        look = partial(_look, tallies, done, total, say)
        for _ in _results(reading, look):
            pass
        done += sum(sum(ends[name].values()) for name in names)


def _look(tallies: Sequence["_Tally"], before: int, total: int, say: Say) -> None:
    say("reading", before + sum(map(_Tally.read, tallies)), total)


def _shares(names: Sequence[str], ends: dict[str, dict[int, int]]) -> list[tuple[int, ...] | None]:
    """The partitions that each process reads; one process has all of several topics."""
    if len(names) > 1:
        return [None]
    partitions = sorted(ends[names[0]])
    return [share for number in range(NUM_PROCESSES) if (share := tuple(partitions[number::NUM_PROCESSES]))]


def _results(left: list[Future[T]], look: Callable[[], object]) -> Iterator[T]:
    """Results as they come, each taken out of `left`; raises what the first that failed raised. `look` is called now
    and then."""
    while left:
        done, _ = wait(left, _LOOK_EVERY_S, FIRST_EXCEPTION)
        for one in done:
            left.remove(one)
            yield one.result()
        look()


def _read(
    open_log: OpenLog, job: _Job, names: Sequence[str], partitions: Collection[int] | None, name: str, tally: "_Tally"
) -> None:
    log = open_log()
    try:
        spill(log, names, partitions, heaps.Writer(job.folder, job.num_heaps, name), tally.write)
    finally:
        log.close()


@dataclass(frozen=True)
class _Tally:
    """How many messages a process has read, in a file that another one looks at; and whether that has given up."""

    path: Path
    stop: Path

    def write(self, num: int) -> None:
        if self.stop.exists():
            raise CancelledError
        fd = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.pwrite(fd, num.to_bytes(8, "little"), 0)
        finally:
            os.close(fd)

    def read(self) -> int:
        try:
            return int.from_bytes(self.path.read_bytes(), "little")
        except FileNotFoundError:
            return 0


def _begin() -> None:
    """In a process of the pool: end with Ctrl-C without a word, and with the audit however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=partial(_end_with, parent), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
