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


def _sources() -> Iterator[tuple[str, Source]]:
    for group, read in READERS.items():
        for topic in read:
            if topic is FEEDBACK:
                yield late_letters(topic.name, group), Source(topic, Shelf.LATE)
            yield dead_letters(topic.name, group), Source(topic, Shelf.DEAD)
            yield parked(topic.name, group), Source(topic, Shelf.PARKED)


SOURCES = dict(_sources())
"""Every topic of letters, by its name."""

TOPICS = {topic.name: topic for topic in (TRACES, FEEDBACK, TRAJECTORIES, REWARDS, FATES)}
