"""The topics: what each carries, who reads it in a group, and how it is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ingest.log.protocol import TopicSpec
from ingest.records.events import Fate, Feedback, Record, Release, Reward, Trace, Trajectory, Version

SEGMENTS = 4  # in which a broker removes what a topic has beyond its retention
_SLACK_S = 3600.0  # brokers look every few minutes, and clocks differ


@dataclass(frozen=True)
class Topic:
    """A topic's name, its record, and whether order across the whole topic matters (one partition, kept for ever)."""

    name: str
    record: type[Record]
    ordered: bool = False


TRACES = Topic("traces", Trace)
FEEDBACK = Topic("feedback", Feedback)
TRAJECTORIES = Topic("trajectories", Trajectory)
REWARDS = Topic("rewards", Reward)
FATES = Topic("fates", Fate)
VERSIONS = Topic("versions", Version, ordered=True)
RELEASES = Topic("releases", Release, ordered=True)

ALL = (TRACES, FEEDBACK, TRAJECTORIES, REWARDS, FATES, VERSIONS, RELEASES)

READERS: Mapping[str, tuple[Topic, ...]] = MappingProxyType(
    {
        "ingest": (TRACES, FEEDBACK),
        "rewards": (TRAJECTORIES,),
        "trainer": (REWARDS,),
        "lake": (TRAJECTORIES, FEEDBACK, REWARDS, FATES, RELEASES),
    }
)
"""Group -> the topics it reads, each of which it may leave letters of."""


def specs(partitions: int, retention_s: float) -> list[TopicSpec]:
    """How to create every topic."""
    return [
        TopicSpec(topic.name, 1 if topic.ordered else partitions, None if topic.ordered else retention_s)
        for topic in ALL
    ]


def gone_after_s(retention_s: float) -> float:
    """When a message of a topic with that retention is gone for sure: a segment goes when its newest message may."""
    return retention_s * (1 + 1 / SEGMENTS) + _SLACK_S


def dead_letters(topic: str, group: str) -> str:
    """Where a group puts the records of a topic that it cannot use."""
    return f"{topic}.{group}.dlq"


def parked(topic: str, group: str) -> str:
    """Where a group keeps the records of a topic that are of a version it does not know yet."""
    return f"{topic}.{group}.parked"


def redriven(letters: str) -> str:
    """Where it is noted what was put back of a topic of letters."""
    return f"{letters}.redriven"


def late_letters(topic: str, group: str) -> str:
    """Where a group notes the records of a topic that came too late to change anything."""
    return f"{topic}.{group}.late"
