"""What shows after the cut that a summary lost something."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from ingest.records.events import ChatMessage, Trajectory, Turn, TurnKind
from ingest.sessions.messages import ASSISTANT, TOOL, USER, key_of
from rewards.scorers import STRICT, Outcome, Scored, Unscored
from rewards.summary import material
from rewards.summary.facts import Mention, Statement
from rewards.summary.told import Standing, Told, told_by

Call = tuple[str, str]
"""A tool's name and its arguments as canonical JSON."""

_HABITUAL = 2  # calls before the cut from which on a call says nothing: polling, running the tests
_SAYING_AGAIN = re.compile(
    r"\bas (?:i|we) (?:already )?(?:said|told|mentioned|wrote|explained)\b|\b(?:i|we) (?:told|gave) you\b|"
    r"\b(?:already|just) (?:told|said|mentioned|gave)\b|^\s*again[:,]",
    re.IGNORECASE,
)
_ASKING_AGAIN = re.compile(
    r"\b(?:could|can|would|please) (?:you )?(?:please )?(?:tell|give|send|repeat|remind|share|provide)\b[^.!?]*"
    r"\b(?:again|once more|of (?:that|it|this|the)|me what|me which)\b|\bremind me\b|"
    r"\b(?:don't have|do not have|lost|am missing) (?:that|this|the|your)(?: \w+)? ?(?:any ?more|detail|information)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, config=STRICT)
class Symptoms:
    """One less what had to be done or said again after the cut, by weight.

        1 - min(1, sum of weights of what is found)

    `repeated`: a tool was called with arguments that it had before the cut, and gave nothing new (calls made twice or
    more before the cut are a habit and do not count). `restated`: a user's message says so ("as I said"), or most of
    what one of their statements says was said by them before the cut. `asked`: a reply asks for what the history had.
    `contradicted`: a reply gives another value to what the history settled, and nobody had said so since.

    Range: [0, 1]; unscored where nothing came after the cut. Cost: milliseconds, no model.
    Gamed by: not asking and guessing (`contradicted`, and the outcome); ending the session, which leaves no symptom and
    no outcome. It sees what users and tools show, never what a summary says of itself.
    """

    repeated: float = Field(0.3, ge=0.0)
    restated: float = Field(0.3, ge=0.0)
    asked: float = Field(0.2, ge=0.0)
    contradicted: float = Field(0.4, ge=0.0)
    name: ClassVar[str] = "symptoms"
    version: ClassVar[str] = "1"
    kinds: ClassVar[frozenset[TurnKind]] = frozenset({TurnKind.SUMMARY})

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        later = [list(material.after(cut)) for cut in material.cuts(trajectory, turn)]
        if not any(later):
            return Unscored("nothing came after the cut")
        before = material.replaced(trajectory, turn)
        return Scored(1.0 - min(1.0, max(self._weigh(before, after) for after in later)))

    def _weigh(self, before: Sequence[ChatMessage], after: Sequence[ChatMessage]) -> float:
        told = told_by(*map(material.said, before))
        return (
            self.repeated * num_repeated(before, after)
            + self.restated * _num_restated(before, after)
            + self.asked * sum(bool(_ASKING_AGAIN.search(m.text)) for m in after if m.role == ASSISTANT)
            + self.contradicted * len(set(_contradictions(told, after)))
        )


def num_repeated(before: Sequence[ChatMessage], after: Sequence[ChatMessage]) -> int:
    """Calls made again after the cut that had been made before it, and gave the same."""
    made = list(_calls(before))
    counts, results = Counter(call for call, _ in made), dict(made)
    again = dict(_calls(after))
    return sum(counts[call] in range(1, _HABITUAL) and result == results[call] for call, result in again.items())


def _calls(messages: Sequence[ChatMessage]) -> Iterator[tuple[Call, str]]:
    """Each call with the text of its result: by its id, else in their order."""
    for number, message in enumerate(messages):
        if message.role != ASSISTANT:
            continue
        following = []
        for other in messages[number + 1 :]:
            if other.role != TOOL:
                break
            following.append(other)
        ids = [call.call_id for call in message.tool_calls]
        for at, call in enumerate(key_of(message)[2]):
            named = [other.text for other in following if at < len(ids) and ids[at] and other.call_id == ids[at]]
            result = named[0] if named else following[at].text if at < len(following) else ""
            yield call, result.strip()


def _num_restated(before: Sequence[ChatMessage], after: Sequence[ChatMessage]) -> int:
    """Users' messages that say something again."""
    earlier = Told(message.text for message in before if message.role == USER)
    return sum(
        bool(_SAYING_AGAIN.search(message.text)) or any(_is_old(earlier, one) for one in earlier.read(message.text))
        for message in after
        if message.role == USER
    )


def _is_old(earlier: Told, statement: Statement) -> bool:
    """Whether a statement gives a value that its speaker had given before, in the same words. Questions give none."""
    return not statement.text.endswith("?") and any(
        earlier.standing(mention) is Standing.HELD for mention in statement.mentions
    )


def _contradictions(told: Told, after: Sequence[ChatMessage]) -> Iterator[str]:
    """Values in replies that the history does not have and has others for, unless a user or tool said them since.

    A value that it has for something else may be said of more than one thing: too little to blame a summary for.
    """
    since = set()
    for message in after:
        _, text, _ = key_of(message)  # what a tool is given may be new
        statements = told.read(text)
        for mention in (mention for statement in statements for mention in statement.mentions):
            if message.role != ASSISTANT:
                since.add(mention.atom.value)
            elif not (mention.atom.value in since or told.has(mention.atom)) and _is_wrong(told, mention):
                yield mention.atom.value


def _is_wrong(told: Told, mention: Mention) -> bool:
    return told.standing(mention) is Standing.WRONG
