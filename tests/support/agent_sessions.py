"""Agent sessions made by a script whose truth is known: what each turn is, what its context came from, what is wrong.

`Session.play` draws a session step by step: ordinary turns, tools, regenerations, edits, compactions of many wordings,
windows that move on, transcripts for a summariser, side turns. Every reply and every word of a user is made of words
of its own, so that only what the script quotes is quoted. Tokens are a stand-in tokenizer's: one per word, one per
role, so prefixes are exact where a client only appends.
"""

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from infra.config import IngestConfig
from ingest.log.protocol import Message as LogMessage
from ingest.records import codec
from ingest.records.events import (
    Assignment,
    ChainMark,
    LinkKind,
    Trace,
    Trajectory,
    TurnKind,
    VersionSpan,
    session_key,
)
from ingest.sessions.table import SessionTable

Message = dict[str, Any]

WRAPPERS = (
    "{}",
    "Here is what happened before:\n{}",
    "This session is being continued from an earlier one. The summary:\n\n{}\n\nPlease go on where it stopped.",
    "<context>\n{}\n</context>\nNow do the next open task.",
    "[memory] {} [/memory]",
)
ASKS = (
    "Summarise your work so far so that you can go on from it alone.",
    "Write a handover: files, values, decisions and what is left to do.",
    "The context is nearly full; compress everything that matters into a note.",
)


@dataclass
class Truth:
    """What the script knows of a turn. `lineage` are the turns whose outcome is also its own, itself among them."""

    kind: TurnKind
    link: tuple[LinkKind, str] | None = None
    parent: str | None = None
    is_missing: bool = False
    ancestors: frozenset[str] = frozenset()


@dataclass
class Turn:
    """One turn as the client saw it: its request's messages, its reply as a message."""

    name: str
    messages: list[Message]
    reply: Message


@dataclass
class Session:
    """One session under way. `traces` are in the order they began."""

    rng: random.Random
    name: str = "agent"
    parent: str | None = None
    traces: list[Trace] = field(default_factory=list)
    truth: dict[str, Truth] = field(default_factory=dict)
    asked: list[Message] = field(default_factory=list)  # the context that the next turn goes on from
    line: list[Turn] = field(default_factory=list)  # turns of this context
    num_head: int = 1  # messages before the first turn's own
    _words: Any = field(default_factory=count)
    _at: float = 0.0

    # -- making words

    def text(self, low: int = 12, high: int = 30) -> str:
        """Words that were never said before, in sentences."""
        words = [f"w{next(self._words)}" for _ in range(self.rng.randint(low, high))]
        cut = max(4, len(words) // 3)
        return " ".join(f"{' '.join(words[at : at + cut])}." for at in range(0, len(words), cut))

    def system(self) -> Message:
        return {"role": "system", "content": "You are a careful agent with tools."}

    # -- taking turns

    def say(
        self,
        messages: list[Message],
        reply: Message | None = None,
        truth: Truth | None = None,
        header: TurnKind = TurnKind.MAIN,
        **changes: Any,
    ) -> Turn:
        """One request and its reply."""
        name = f"{session_key(self.name)}-{len(self.traces)}"
        reply = reply or {"role": "assistant", "content": self.text()}
        prompt, tokens = tokens_of(messages), tokens_of([reply])
        trace = Trace.model_validate(
            {
                "trace_id": name,
                "session_id": self.name,
                "parent_session_id": self.parent,
                "tenant": "default",
                "assignment": Assignment(),
                "engine_id": "stable-0",
                "kind": header,
                "endpoint": "/v1/chat/completions",
                "model": "policy",
                "request": {"messages": [dict(message) for message in messages]},
                "reply_text": raw(reply),
                "streamed": False,
                "status": 200,
                "prompt_token_ids": prompt,
                "token_ids": tokens,
                "logprobs": (-0.5,) * len(tokens),
                "spans": (VersionSpan(version=1, start=0, end=len(tokens)),),
                "sampling": {},
                "finish_reason": "stop",
                "started_at": self._at,
                "finished_at": self._at + 1.0,
            }
            | changes
        )
        self._at += 2.0
        self.traces.append(trace)
        self.truth[name] = truth or Truth(header)
        return Turn(name, list(messages), reply)

    def go_on(self, *new: Message, reply: Message | None = None, link: tuple[LinkKind, str] | None = None) -> Turn:
        """The next turn of this context."""
        self.asked += new
        before = self.line[-1].name if self.line else None
        turn = self.say(self.asked, reply, Truth(TurnKind.MAIN, link, before, ancestors=self.upto(before)))
        self.line.append(turn)
        self.asked = [*self.asked, turn.reply]
        return turn

    def upto(self, name: str | None) -> frozenset[str]:
        """A turn and all it goes on from."""
        return frozenset() if name is None else self.truth[name].ancestors | {name}

    # -- what a client may do

    def begin(self) -> None:
        self.asked = [self.system()]
        self.go_on({"role": "user", "content": self.text()})

    def speak(self) -> None:
        self.go_on({"role": "user", "content": self.text()})

    def quote_itself(self) -> None:
        """Ordinary dialogue: the user quotes something the model said before, and the conversation simply goes on."""
        said = self.rng.choice(self.line).reply["content"] or "that"
        self.go_on({"role": "user", "content": f"You said: {said} Are you sure? {self.text(4, 8)}"})

    def use_tool(self) -> None:
        """The model calls a tool; the client answers with its result."""
        number = next(self._words)
        call = {
            "id": f"call{number}",
            "type": "function",
            "function": {"name": "read", "arguments": f'{{"n": {number}}}'},
        }
        reply = {"role": "assistant", "content": self.rng.choice(["", self.text()]), "tool_calls": [call]}
        self.go_on({"role": "user", "content": self.text()}, reply=reply)
        self.go_on({"role": "tool", "content": self.text(), "tool_call_id": f"call{number}"})

    def regenerate(self) -> None:
        """The same request again; the new reply is gone on from."""
        last = self.line.pop()
        twins = [name for name, asked in self._asked() if asked == last.messages]
        parent = self.truth[last.name].parent
        self.asked = list(last.messages)
        link = (LinkKind.BRANCH, twins[0])
        turn = self.say(self.asked, None, Truth(TurnKind.MAIN, link, parent, ancestors=self.upto(parent)))
        self._carry(last, turn)
        self.line.append(turn)
        self.asked = [*self.asked, turn.reply]

    def _carry(self, last: Turn, turn: Turn) -> None:
        """What the replaced turn went on from by a link is what this one goes on from."""
        self.truth[turn.name].ancestors |= self.truth[last.name].ancestors

    def _asked(self) -> list[tuple[str, list[Message]]]:
        return [(trace.trace_id, trace.request["messages"]) for trace in self.traces if trace.kind is not TurnKind.SIDE]

    def edit(self) -> None:
        """The user takes back their last words, not the first, and says something else; perhaps quotes the answer."""
        if len(self.line) < 2 or self.line[-1].messages[-1]["role"] != "user":
            return
        last = self.line.pop()
        quoted = f'You answered "{last.reply["content"]}", which misses it. ' if self.rng.random() < 0.5 else ""
        kept = self.line[-1]
        self.asked = [*kept.messages, kept.reply, {"role": "user", "content": quoted + self.text()}]
        replaced = next(name for name, truth in self.truth.items() if truth.parent == kept.name)
        link = (LinkKind.BRANCH, replaced)
        turn = self.say(self.asked, None, Truth(TurnKind.MAIN, link, kept.name, ancestors=self.upto(kept.name)))
        self.line.append(turn)
        self.asked = [*self.asked, turn.reply]

    def side(self) -> None:
        """A title for the conversation: served, never trained, no part of it."""
        self.say([*self.asked, {"role": "user", "content": "A title, please."}], header=TurnKind.SIDE)

    def compact(self, is_declared: bool) -> None:
        """Ask for a summary, throw the context away, go on from the summary in the client's own wrapping."""
        summary = self._summarise(is_declared)
        quoted = self._carried(summary.reply["content"], is_declared)
        role = self.rng.choice(["system", "user", "user", "assistant"])
        carrier = {"role": role, "content": self.rng.choice(WRAPPERS).format(quoted)}
        head = [self.system(), *([self.line[0].messages[1]] if self.rng.random() < 0.3 else [])]
        self.asked, self.line = [*head, carrier], []
        self._restart(summary)

    def _restart(self, summary: Turn) -> None:
        self.num_head = len(self.asked)
        self.asked.append({"role": "user", "content": self.text()})
        ancestors = self.upto(summary.name)
        truth = Truth(TurnKind.MAIN, (LinkKind.COMPACTION, summary.name), None, ancestors=ancestors)
        turn = self.say(self.asked, None, truth)
        self.line.append(turn)
        self.asked = [*self.asked, turn.reply]

    def _summarise(self, is_declared: bool) -> Turn:
        content = self.text(40, 80)
        if self.rng.random() < 0.3:
            content = f"<analysis>{self.text()}</analysis><summary>{content}</summary>"
        reply = {"role": "assistant", "content": content}
        header = TurnKind.SUMMARY if is_declared else TurnKind.MAIN
        before = self.line[-1].name
        truth = Truth(TurnKind.SUMMARY, None, before, ancestors=self.upto(before))
        return self.say([*self.asked, {"role": "user", "content": self.rng.choice(ASKS)}], reply, truth, header)

    def _carried(self, summary: str, is_declared: bool) -> str:
        """The summary as the client hands it on: whole, without its analysis, rewrapped, or with a piece left out."""
        if "<summary>" in summary:
            summary = self.rng.choice([summary, summary.partition("<summary>")[2].removesuffix("</summary>")])
        how = self.rng.randrange(3)
        if how == 1:
            return "\n".join(summary.split(" "))
        if how == 2:
            words = summary.split()
            gone = len(words) // (2 if is_declared else 8)
            return " ".join(words[gone:] if self.rng.random() < 0.5 else words[: len(words) - gone])
        return summary

    def summarise_apart(self) -> None:
        """A summariser with a context of its own reads a transcript; its summary carries the conversation on."""
        transcript = self._transcript()
        if transcript is None:
            return
        asked = [
            {"role": "system", "content": "You compress conversations."},
            {"role": "user", "content": f"The conversation:\n{transcript}"},
        ]
        newest = self.line[-1].name
        truth = Truth(TurnKind.SUMMARY, (LinkKind.REWRITE, newest), None, ancestors=self.upto(newest))
        summary = self.say(asked, {"role": "assistant", "content": self.text(40, 80)}, truth)
        self._carry_on(summary)

    def copy(self) -> None:
        """Asked for a summary, and said so, the model copies the conversation; the client goes on from that."""
        transcript = self._transcript()
        if transcript is None:
            return
        before = self.line[-1].name
        truth = Truth(TurnKind.SUMMARY, None, before, ancestors=self.upto(before))
        asked = [*self.asked, {"role": "user", "content": self.rng.choice(ASKS)}]
        self._carry_on(self.say(asked, {"role": "assistant", "content": transcript}, truth, TurnKind.SUMMARY))

    def _transcript(self) -> str | None:
        """What was said in this context, speaker by speaker; none where it is not only talk of two."""
        said = self.asked[self.num_head :]
        if len(self.line) < 2 or any(turn.messages[-1]["role"] != "user" for turn in self.line):
            return None
        if any(message.get("tool_calls") or message["role"] not in ("user", "assistant") for message in said):
            return None
        return "\n".join(f"{message['role'].title()}: {message['content']}" for message in said)

    def _carry_on(self, summary: Turn) -> None:
        self.asked = [self.system(), {"role": "user", "content": WRAPPERS[1].format(summary.reply["content"])}]
        self.line = []
        self._restart(summary)

    def move_window(self) -> None:
        """The client lets go of the oldest messages and keeps the last two exchanges."""
        if len(self.line) < 4 or len(self.asked) < 7 or any(turn.reply.get("tool_calls") for turn in self.line[-3:]):
            return
        kept = self.asked[-4:]
        if [message["role"] for message in kept] != ["user", "assistant", "user", "assistant"]:
            return
        newest = self.line[-1].name
        self.asked, self.line, self.num_head = [self.system(), *kept], [], 1
        self.go_on({"role": "user", "content": self.text()}, link=(LinkKind.REWRITE, newest))
        self.truth[self.line[-1].name].ancestors = self.upto(newest)

    def lose(self) -> None:
        """The next turn's trace never arrives: what goes on from it holds a reply that nobody gave."""
        before = self.line[-1].name
        lost = [{"role": "user", "content": self.text()}, {"role": "assistant", "content": self.text()}]
        self.asked += [*lost, {"role": "user", "content": self.text()}]
        truth = Truth(TurnKind.MAIN, None, before, True, self.upto(before))
        turn = self.say(self.asked, None, truth)
        self.line.append(turn)
        self.asked = [*self.asked, turn.reply]

    def lose_summary(self) -> None:
        """The summary's trace never arrives: the context after it begins on its own."""
        role = self.rng.choice(["user", "assistant"])
        carrier = {"role": role, "content": WRAPPERS[1].format(self.text(40, 80))}
        self.asked, self.line, self.num_head = [self.system(), carrier], [], 2
        self.go_on({"role": "user", "content": self.text()})
        self.truth[self.line[-1].name].is_missing = role == "assistant"


Step = Callable[[Session], None]

ORDINARY: tuple[Step, ...] = (
    Session.speak, Session.speak, Session.quote_itself, Session.regenerate, Session.edit, Session.side,
    Session.use_tool, Session.move_window,
)  # fmt: skip
AGENTIC: tuple[Step, ...] = (
    *ORDINARY,
    lambda session: session.compact(is_declared=False),
    lambda session: session.compact(is_declared=True),
    Session.summarise_apart,
    Session.copy,
    Session.lose,
    Session.lose_summary,
)


def play(seed: int, steps: tuple[Step, ...], length: int, name: str = "agent", parent: str | None = None) -> Session:
    """A session of `length` steps drawn from `steps`."""
    rng = random.Random(seed)
    session = Session(rng, name, parent)
    session.begin()
    for _ in range(length):
        rng.choice(steps)(session)
    return session


def play_family(seed: int, steps: tuple[Step, ...], length: int) -> list[Session]:
    """An agent's session, and those of up to two sub-agents that it started."""
    rng = random.Random(seed)
    agent = play(seed, steps, length)
    subs = [play(seed + n, steps, rng.randint(1, length), f"sub-{n}", agent.name) for n in range(1, rng.randint(1, 3))]
    return [agent, *subs]


def close(sessions: Sequence[Session], order: Sequence[int] | None = None) -> list[Trajectory]:
    """The trajectories of `sessions`, in their order. Their traces, laid side by side, arrive in `order`, if given.

    A number that stands twice in `order` is delivered twice.
    """
    table = SessionTable(IngestConfig(inactivity_s=1e6, horizon_s=1e7))
    traces = interleaved(sessions)
    for offset, number in enumerate(order if order is not None else range(len(traces))):
        value, headers = codec.encode(traces[number])
        table.add_trace(traces[number], LogMessage("traces", 0, offset, "key", value, headers), now=1e6)
    closed = {one.trajectory.session_id: one.trajectory for one in table.due(now=1e8)}
    return [closed[session.name] for session in sessions]


def interleaved(sessions: Sequence[Session]) -> list[Trace]:
    """The traces of all sessions, as they began."""
    return sorted((trace for session in sessions for trace in session.traces), key=lambda trace: trace.started_at)


def disagreements(session: Session, trajectory: Trajectory) -> list[str]:
    """Where a trajectory says otherwise than the script: kinds, links, parents, missing turns, and whose it is."""
    ours = {name: truth for name, truth in session.truth.items() if truth.kind is not TurnKind.SIDE}
    links = {chain.segments[0].trace_id: chain.link for chain in trajectory.chains}
    marked = {s.trace_id for c in trajectory.chains if ChainMark.MISSING in c.marks for s in c.segments}
    missing = {name for name, truth in ours.items() if truth.is_missing}
    blamed = [c for c in trajectory.chains if ChainMark.MISSING in c.marks]
    said = {
        "kinds": {turn.trace_id: turn.kind for turn in trajectory.turns},
        "links": {name: (link.kind, link.trace_id) for name, link in links.items() if link},
        "parents": {turn.trace_id: turn.parent for turn in trajectory.turns if turn.trace_id in ours},
        "missing turns": missing & marked,
        "chains without a missing turn": [c for c in blamed if not missing & {s.trace_id for s in c.segments}],
        "agent": trajectory.parent_session_id,
    }
    true = {
        "kinds": {name: truth.kind for name, truth in session.truth.items()},
        "links": {name: truth.link for name, truth in ours.items() if truth.link},
        "parents": {name: truth.parent for name, truth in ours.items()},
        "missing turns": missing,
        "chains without a missing turn": [],
        "agent": session.parent,
    }
    return [f"{what}: {said[what]}, must be {true[what]}" for what in true if said[what] != true[what]]


def raw(reply: Message) -> str:
    """A reply as the engine sampled it: tool calls are markup in its text."""
    functions = [call["function"] for call in reply.get("tool_calls", [])]
    calls = [f'{{"name": "{function["name"]}", "arguments": {function["arguments"]}}}' for function in functions]
    return "".join([reply["content"] or "", *(f"<tool_call>\n{call}\n</tool_call>" for call in calls)])


def tokens_of(messages: list[Message]) -> tuple[int, ...]:
    """A stand-in tokenizer: equal messages give equal tokens, and a longer list only appends."""
    found: list[int] = []
    for message in messages:
        text = raw(message) if message["role"] == "assistant" else message["content"]
        found += [zlib.crc32(word.encode()) for word in (f"<{message['role']}>", *text.split())]
    return tuple(found)
