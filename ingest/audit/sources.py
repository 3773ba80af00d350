"""The topics that the audit reads: those of records, and those of letters."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ingest.log.topics import (
    FATES,
    FEEDBACK,
    READERS,
    REWARDS,
    TRACES,
    TRAJECTORIES,
    Topic,
    dead_letters,
    late_letters,
    parked,
)


class Shelf(StrEnum):
    """Where letters lie."""

    DEAD = "dead"
    PARKED = "parked"
    LATE = "late"


@dataclass(frozen=True)
class Source:
    """A topic of letters: what was read when they were left, and why they lie apart."""

    topic: Topic
    shelf: Shelf


_GROUPS = ("ingest", "rewards", "trainer")  # what these leave aside goes no further; others only read along


def _sources() -> Iterator[tuple[str, Source]]:
    """The last letter about a session counts: of its trajectory or reward, one that is dead before one that waits."""
    for group in _GROUPS:
        for topic in READERS[group]:
            if topic is FEEDBACK:
                yield late_letters(topic.name, group), Source(topic, Shelf.LATE)
                yield dead_letters(topic.name, group), Source(topic, Shelf.DEAD)
                yield parked(topic.name, group), Source(topic, Shelf.PARKED)
            else:
                yield parked(topic.name, group), Source(topic, Shelf.PARKED)
                yield dead_letters(topic.name, group), Source(topic, Shelf.DEAD)


SOURCES = dict(_sources())
"""Every topic of letters that say how a trace or feedback ended, by its name, in the order to read them."""

TOPICS = {topic.name: topic for topic in (TRACES, FEEDBACK, TRAJECTORIES, REWARDS, FATES)}
