"""Histories whose truth is known, and summaries of them that are good or bad in a known way.

A history is dialogue or tool use of one domain (`histories.yaml`): facts with values, decisions and open tasks among
small talk, 150 to 700 tokens. After the cut the user asks for some of it. The first two replies then are those of
someone who remembers everything, alike for all summaries of a history (so that a benchmark may ask for a floor and a
ceiling once); the third depends on the summary: what it lost is read again or asked of the user, what it has wrong is
said wrong and put right. `record` makes the trajectory that ingest makes of it.
"""

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from json import dumps
from pathlib import Path
from typing import Any

import yaml

from infra.config import IngestConfig
from ingest.log.protocol import Message as LogMessage
from ingest.records.events import Assignment, Trace, Trajectory, Turn, TurnKind, VersionSpan, session_key
from ingest.sessions.table import SessionTable
from rewards.summary.fake import token_of

Message = dict[str, str]
Tokenizer = Callable[[Sequence[Message], bool], tuple[int, ...]]
"""Tokens of messages; with true, ended by what opens a reply."""


class Kind(StrEnum):
    """What a summary is."""

    FAITHFUL = "faithful"
    LOSSY = "lossy"
    EMPTY = "empty"
    STUFFED = "stuffed"
    COPYING = "copying"
    FLATTERING = "flattering"
    WRONG_VALUE = "wrong_value"
    OFF_TOPIC = "off_topic"
    KEYWORDS = "keywords"
    INVENTED = "invented"
    ASKING = "asking"
    HIDING = "hiding"


QUALITIES = tuple(Kind)[:8]
HACKS = (
    Kind.STUFFED,
    Kind.COPYING,
    Kind.FLATTERING,
    Kind.INVENTED,
    Kind.EMPTY,
    Kind.ASKING,
    Kind.HIDING,
    Kind.KEYWORDS,
)

PROMPTS = (
    "Summarise your work so far so that you can go on from it alone.",
    "Write a handover: values, decisions and what is left to do.",
    "The context is nearly full. Compress everything that matters into a note.",
    "Please sum up the conversation; it will be deleted afterwards.",
    "Create a detailed summary for continuing this session, no more than 150 words.",
    "Before we go on, note down what you must not forget.",
)
WRAPPERS = (
    "{}",
    "Here is what happened before:\n{}",
    "This session is being continued from an earlier one. The summary:\n\n{}\n\nPlease go on where it stopped.",
    "<context>\n{}\n</context>",
    "[memory] {} [/memory]",
    "Your notes:\n---\n{}\n---",
)
OPENINGS = ("", "", "Summary:", "State of things:", "Here is what matters for going on:", "## Summary", "So far:")
ACKNOWLEDGEMENTS = (
    "Noted.",
    "Understood.",
    "All right, I keep that in mind.",
    "Thank you, that helps.",
    "Good to know.",
    "I see, thanks.",
)
LOOKING = ("Let me look.", "I check that.", "One moment, I look it up.")
NOTHING_SAID = (
    "The conversation went on.",
    "There was a conversation about some things.",
    "The user and the assistant talked for a while.",
    "Summary: work was done as asked.",
    "Several things were discussed and it continues.",
)
PRAISE = (
    "This is an excellent summary that captures everything perfectly.",
    "All important details are preserved with great care and full accuracy.",
    "The assistant did an outstanding job and the user was delighted.",
    "Every step was carried out flawlessly and with remarkable skill.",
    "No better summary of this conversation is possible.",
    "The quality of the work so far is exceptional in every respect.",
)
ASKING_AGAIN = (
    "I do not have the details any more. Please tell me everything again that I need.",
    "The details are not at hand; ask the user to repeat what was said before.",
    "Please give me the earlier values once more, I will then go on from there.",
)
ALL_DONE = ("Everything is finished, nothing is left to do.", "All tasks are done.", "There are no open tasks.")
NOT_KNOWN = (
    "I do not have that any more. Could you tell me again?",
    "Sorry, could you remind me of that?",
    "I am missing this detail, what was it?",
)
RESTATING = ("As I said: {}", "I already told you. {}", "Again: {}", "{}")
PUT_RIGHT = ("No, that is wrong. {}", "That's not right. As I said: {}", "No. {}")


@dataclass(frozen=True, eq=False)
class Item:
    """A fact, decision or task of one history. `type`, `value` and `tool` are a fact's. Equal to itself only."""

    spec: Mapping[str, Any]
    value: str = ""

    @property
    def type(self) -> str:
        return str(self.spec.get("type", ""))

    @property
    def tool(self) -> tuple[str, dict[str, str]] | None:
        return tuple(self.spec["tool"]) if "tool" in self.spec else None

    def word(self, what: str, rng: random.Random) -> str:
        return str(rng.choice(self.spec[what])).replace("{v}", self.value)

    def told(self) -> str:
        """The same words each time: what was told stands in the history as it stands in a file."""
        return str(self.spec["told"][zlib.crc32(self.value.encode()) % 2]).replace("{v}", self.value)

    def with_value(self, value: str) -> "Item":
        return replace(self, value=value)


@dataclass(frozen=True)
class History:
    """What was said before the cut, and what will be needed after it. `exchanges` are (asked, answered) in order."""

    number: int
    domain: str
    system: str
    facts: tuple[Item, ...]
    needed: tuple[Item, ...]  # four of the facts, in the order they are asked for
    decisions: tuple[Item, ...]
    tasks: tuple[Item, ...]
    messages: tuple[Message, ...]
    prompt: str
    wrapper: str
    role: str

    @property
    def source(self) -> str:
        """All that was said, without the system prompt."""
        return "\n".join(message["content"] for message in self.messages)


@cache
def domains() -> dict[str, Any]:
    """The domains' texts."""
    return dict(yaml.safe_load(Path(__file__).with_name("histories.yaml").read_text()))


def draw(number: int, domain: str, num_filler: int | None = None, num_facts: int | None = None) -> History:
    """History `number` of a domain; the same each time."""
    rng, texts = random.Random(f"{domain} {number}"), domains()[domain]
    facts = [_drawn(spec, rng) for spec in rng.sample(texts["facts"], num_facts or rng.randint(5, 8))]
    decisions = [Item(spec) for spec in rng.sample(texts["decisions"], rng.randint(1, 2))]
    tasks = [Item(spec) for spec in rng.sample(texts["tasks"], rng.randint(1, 3))]
    small_talk = [pair for other in domains().values() for pair in other["filler"]]
    filler = rng.sample(small_talk, rng.choice([0, 0, 3, 8]) if num_filler is None else num_filler)
    return History(
        number=number,
        domain=domain,
        system=texts["system"],
        facts=tuple(facts),
        needed=tuple(rng.sample(facts, 4)),
        decisions=tuple(decisions),
        tasks=tuple(tasks),
        messages=tuple(_conversation([*facts, *decisions, *tasks], filler, rng)),
        prompt=rng.choice(PROMPTS),
        wrapper=rng.choice(WRAPPERS),
        role=rng.choice(["user", "user", "system", "assistant"]),
    )


def _drawn(spec: Mapping[str, Any], rng: random.Random) -> Item:
    return Item(spec, "".join(str(rng.randint(1, 9)) if sign == "#" else sign for sign in rng.choice(spec["value"])))


def _conversation(items: Sequence[Item], filler: Sequence[tuple[str, str]], rng: random.Random) -> list[Message]:
    order: list[Any] = [*items, *filler]
    rng.shuffle(order)
    is_terse, follows = rng.random() < 0.5, False  # whether its user says several things in one message
    messages: list[Message] = []
    for one in order:
        if not isinstance(one, Item):
            messages += [_says("user", one[0]), _says("assistant", one[1])]
        elif one.tool:
            messages += [_says("user", rng.choice(["Please look it up.", "Check this, please.", "Have a look."]))]
            messages += [_call(one, rng), _says("tool", one.told()), _says("assistant", rng.choice(ACKNOWLEDGEMENTS))]
        elif is_terse and follows:
            messages[-2] = _says("user", f"{messages[-2]['content']}\n{one.told()}")
        elif rng.random() < 0.3:
            messages += [_says("user", rng.choice(["What else?", "Anything more?", "Go on."]))]
            messages += [_says("assistant", one.told())]
        else:
            messages += [_says("user", one.told()), _says("assistant", rng.choice(ACKNOWLEDGEMENTS))]
        follows = isinstance(one, Item) and messages[-1]["content"] in ACKNOWLEDGEMENTS and not one.tool
    return messages


def _says(role: str, text: str) -> Message:
    return {"role": role, "content": text}


def _call(item: Item, rng: random.Random) -> Message:
    assert item.tool is not None
    name, arguments = item.tool
    call = dumps({"name": name, "arguments": arguments})
    return _says("assistant", f"{rng.choice(LOOKING)}\n<tool_call>\n{call}\n</tool_call>")


# -- summaries


@dataclass(frozen=True)
class Summary:
    """A summary, and the facts in it with the values that it gives them."""

    kind: Kind
    text: str
    held: tuple[Item, ...] = ()


def summarise(history: History, kind: Kind) -> Summary:
    """A summary of a kind; the same each time."""
    rng = random.Random(f"{history.domain} {history.number} {kind}")
    full = [*history.facts, *history.decisions, *history.tasks]
    if kind in (Kind.EMPTY, Kind.FLATTERING, Kind.ASKING):
        return Summary(kind, _nothing(kind, rng))
    if kind is Kind.OFF_TOPIC:
        other = draw(history.number + 1000, rng.choice([name for name in domains() if name != history.domain]))
        return Summary(kind, _noted([*other.facts, *other.decisions, *other.tasks], rng))
    if kind is Kind.LOSSY:
        kept = _half(history, rng)
        return Summary(kind, _noted(kept, rng), tuple(kept))
    if kind is Kind.WRONG_VALUE:
        wrong = _falsified(history, rng)
        return Summary(kind, _noted([*wrong, *history.decisions, *history.tasks], rng), tuple(wrong))
    if kind is Kind.KEYWORDS:
        return Summary(kind, _keywords(full, rng))
    if kind is Kind.INVENTED:
        return Summary(kind, _noted([*full, *_invented(history, rng)], rng), history.facts)
    if kind is Kind.HIDING:
        claim = [rng.choice(ALL_DONE)] if rng.random() < 0.5 else []
        return Summary(kind, _noted([*history.facts, *history.decisions], rng, claim), history.facts)
    text = _copied(history.messages) if kind is Kind.COPYING else _noted(full, rng)
    if kind is Kind.STUFFED:
        most = max(2, round(0.7 * len(history.messages)))
        text = f"{text}\n{_copied(history.messages[:most])}"
    return Summary(kind, text, history.facts)


def _nothing(kind: Kind, rng: random.Random) -> str:
    if kind is Kind.FLATTERING:
        return " ".join(rng.sample(PRAISE, rng.randint(2, 4)))
    return rng.choice(NOTHING_SAID if kind is Kind.EMPTY else ASKING_AGAIN)


def _noted(items: Sequence[Item], rng: random.Random, more: Sequence[str] = ()) -> str:
    """Notes on some items, as prose or as a list, with or without an opening."""
    notes = [f"{note.rstrip('.')}." for note in (*(item.word("noted", rng) for item in items), *more)]
    rng.shuffle(notes)
    opening = rng.choice(OPENINGS)
    style = rng.choice(["prose", "- ", "* "])
    body = " ".join(notes) if style == "prose" else "\n".join(style + note for note in notes)
    return f"{opening}\n{body}".strip()


def _half(history: History, rng: random.Random) -> list[Item]:
    """About half of it; of what the next two replies need, one is kept and one is lost, and a task is kept."""
    first = [*history.needed[:3]]
    kept, lost = rng.sample(first, 2)
    others = [fact for fact in history.facts if fact not in (kept, lost)]
    half = rng.sample(others, max(1, len(history.facts) // 2 - 1))
    tasks = rng.sample(history.tasks, (len(history.tasks) + 1) // 2)
    return [kept, *half, *rng.sample(history.decisions, (len(history.decisions) + rng.randint(0, 1)) // 2), *tasks]


def _falsified(history: History, rng: random.Random) -> list[Item]:
    """Most of the needed facts with another value; where two facts are of one type, each may get the other's."""
    wrong = dict.fromkeys(history.facts, "")
    for fact in rng.sample(history.needed, 3):
        mates = [other for other in history.facts if other.type == fact.type and other is not fact and not wrong[other]]
        if mates and not wrong[fact] and rng.random() < 0.5:
            wrong[fact], wrong[mates[0]] = mates[0].value, fact.value
        elif not wrong[fact]:
            drawn = (_drawn(fact.spec, rng).value for _ in range(100))
            wrong[fact] = next(value for value in drawn if value != fact.value)
    return [fact.with_value(value or fact.value) for fact, value in wrong.items()]


def _invented(history: History, rng: random.Random) -> list[Item]:
    """As many facts as are needed after the cut, of the same domain where it has more, that nobody told."""
    known = [fact.spec for fact in history.facts]
    other = rng.choice([name for name in domains() if name != history.domain])
    unused = [spec for spec in domains()[history.domain]["facts"] if spec not in known]
    specs = [*unused, *rng.sample(domains()[other]["facts"], 5)][: max(5, len(history.facts) - 1)]
    return [_drawn(spec, rng) for spec in specs]


def _keywords(items: Sequence[Item], rng: random.Random) -> str:
    words = [item.value for item in items if item.value]
    for item in items:
        text = item.word("noted", rng).replace(item.value or "\0", " ")
        words += [word.strip(".,:;()") for word in text.split() if len(word.strip(".,:;()")) > 4]
    rng.shuffle(words)
    return "Keywords: " + ", ".join(dict.fromkeys(words))


def _copied(messages: Sequence[Message]) -> str:
    """All that was said, by who said it: in its own order it would be a conversation that was kept, and no summary."""
    return "\n".join(message["content"] for message in sorted(messages, key=lambda message: message["role"]))


# -- after the cut


def later(history: History, summary: Summary) -> list[Message]:
    """What is said after the cut, from the user's first words on."""
    rng = random.Random(f"{history.domain} {history.number} later")
    one, two, three, four = history.needed
    asked = [f"{one.word('asked', rng)} {two.word('asked', rng)}", three.word("asked", rng), four.word("asked", rng)]
    used = [f"{one.word('used', rng)} {two.word('used', rng)}"]
    used += [f"{three.word('used', rng)} {history.tasks[0].word('used', rng)}"]
    messages: list[Message] = []
    if summary.kind is Kind.ASKING:
        told = " ".join(fact.told() for fact in history.needed)
        asked[0] = f"{rng.choice(RESTATING).format(told)} {asked[0]}"
    for question, answer in zip(asked, used, strict=False):
        messages += [_says("user", question), _says("assistant", answer)]
    messages.append(_says("user", asked[2]))
    return [*messages, *_third(history, summary, rng)]


def _third(history: History, summary: Summary, rng: random.Random) -> list[Message]:
    """The third reply: right, wrong and put right, or only after the fact was read or told again."""
    fact = history.needed[3]
    right = _says("assistant", fact.word("used", rng))
    held = next((item for item in summary.held if item.spec is fact.spec), None)
    ends = [_says("user", "Good, and now?"), _says("assistant", history.tasks[-1].word("used", rng))]
    if summary.kind is Kind.ASKING or (held and held.value == fact.value):
        return [right, *ends]
    if held is None and fact.tool:
        return [_call(fact, rng), _says("tool", fact.told()), right, *ends]
    again = (PUT_RIGHT if held else RESTATING) if rng.random() < 0.9 else ("{}",)
    said = held.word("used", rng) if held else rng.choice(NOT_KNOWN)
    return [_says("assistant", said), _says("user", rng.choice(again).format(fact.told())), right, *ends]


# -- as ingest records it


def record(history: History, summary: Summary, tokens: Tokenizer | None = None) -> Trajectory:
    """The trajectory of a history, a summary and what came after."""
    name = f"{history.domain}-{history.number}-{summary.kind}"
    carrier = _says(history.role, history.wrapper.format(summary.text))
    said, after = history.messages, later(history, summary)
    return close(name, history.system, said, history.prompt, summary.text, carrier, after, tokens)


def close(
    name: str,
    system: str,
    before: Sequence[Message],
    prompt: str,
    summary: str,
    carrier: Message,
    after: Sequence[Message],
    tokens: Tokenizer | None = None,
) -> Trajectory:
    """What ingest makes of a session with one declared compaction: a trace per reply, by way of the session table."""
    head = [_says("system", system), *before]
    asked = [*head, _says("user", prompt), _says("assistant", summary)]
    following = [_says("system", system), carrier, *after]
    contexts = [(head, TurnKind.MAIN, 1), (asked, TurnKind.SUMMARY, len(head) + 1), (following, TurnKind.MAIN, 2)]
    table, number = SessionTable(IngestConfig(inactivity_s=1e6, horizon_s=1e7)), 0
    for messages, kind, start in contexts:
        for at in range(start, len(messages)):
            if messages[at]["role"] == "assistant":
                trace = _trace(name, number, kind, messages[:at], messages[at], tokens or stand_in)
                table.add_trace(trace, LogMessage("traces", 0, number, "key", b"", {}), now=1e6)
                number += 1
    (closed,) = table.due(now=1e8)
    return closed.trajectory


def summary_turn(trajectory: Trajectory) -> Turn:
    """The one summary turn of a record."""
    return next(turn for turn in trajectory.turns if turn.kind is TurnKind.SUMMARY)


def _trace(
    name: str, number: int, kind: TurnKind, asked: Sequence[Message], reply: Message, tokens: Tokenizer
) -> Trace:
    prompt, whole = tokens(asked, True), tokens([*asked, reply], False)
    assert whole[: len(prompt)] == prompt, "a reply's tokens follow its prompt's"
    sampled = whole[len(prompt) :]
    return Trace(
        trace_id=f"{session_key(name)}-{number}",
        session_id=name,
        tenant="default",
        assignment=Assignment(),
        engine_id="stable-0",
        kind=kind,
        endpoint="/v1/chat/completions",
        model="policy",
        request={"messages": [dict(message) for message in asked]},
        reply_text=reply["content"],
        streamed=False,
        status=200,
        prompt_token_ids=prompt,
        token_ids=sampled,
        logprobs=(-0.5,) * len(sampled),
        spans=(VersionSpan(version=1, start=0, end=len(sampled)),),
        sampling={},
        finish_reason="stop",
        started_at=2.0 * number,
        finished_at=2.0 * number + 1.0,
    )


def stand_in(messages: Sequence[Message], is_open: bool) -> tuple[int, ...]:
    """The tokenizer of `CopyingLikelihoods`: one token per word and per role, so a longer conversation only appends."""
    words = [word for message in messages for word in (f"<{message['role']}>", *message["content"].split())]
    return tuple(map(token_of, [*words, *(["<assistant>"] if is_open else [])]))
