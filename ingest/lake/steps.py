"""The moments of a commit at which a process may die: tests kill it at each, nothing else looks."""

from collections.abc import Callable
from enum import StrEnum


class Step(StrEnum):
    """What has just been done; the numbers are those of `ingest.lake.table` and `ingest.lake.writer`."""

    READ = "1: records are read"
    LETTERED = "2: dead letters are durable"
    FILE = "3: a data file is written, others may follow"
    FILES = "3: all data files are written"
    COMMITTED = "4: the commit exists"
    CHECKPOINTED = "5: a checkpoint is written"
    FOLLOWED = "6: the group's offsets follow"
    DELETED = "a swept file is deleted"


Watch = Callable[[Step], None]


def unwatched(_step: Step) -> None:
    """Nobody looks."""
