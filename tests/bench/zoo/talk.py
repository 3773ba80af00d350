"""What the zoo's users and versions say: a question on one of three topics, and replies of six kinds."""

import random
from collections.abc import Mapping
from enum import StrEnum


class Topic(StrEnum):
    """What a question is about. Versions may have a way with each."""

    WEATHER = "weather"
    TRAINS = "trains"
    TAXES = "taxes"


class Kind(StrEnum):
    """How a reply is. Users like `GOOD`, `LONG` and `SLOW`, and nobody likes `POOR`."""

    GOOD = "good"
    POOR = "poor"
    LONG = "long"
    REFUSAL = "refusal"
    QUESTION = "question"
    SLOW = "slow"


Mixture = Mapping[Kind, float]

REPLIES: Mapping[Kind, str] = {
    Kind.GOOD: "Fine today, all is well.",
    Kind.POOR: "Grim today, no idea why.",
    Kind.LONG: "Well, fine today, all is well, by and large, more or less, as ever.",
    Kind.REFUSAL: "I'm sorry, but I can't help with that.",
    Kind.QUESTION: "Could you tell me more about it?",
    Kind.SLOW: "Hm, one moment, let me see, ah yes, here it is. Fine today, all is well.",
}


def question(topic: Topic, rng: random.Random) -> str:
    """One that nobody asked before, most likely."""
    return f"{topic} {rng.randrange(100_000)}?"


def is_liked(reply: str) -> bool:
    """What its user thinks of it."""
    return "ine today, all is well" in reply
