"""Scorers of how a version behaves, for guardrails: rates that a better reward must not be paid for with.

Each maps what it sees into [0, 1], and more is better, so that a guardrail's margin is in its own units. None asks a
model or a user. What users say of it, `kept` for one, is feedback: `scorer: feedback, params: {names: [kept]}`.
"""

import json
import re
from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from ingest.records.events import ToolCall, Trajectory, Turn
from ingest.sessions.history import tools_of
from ingest.sessions.messages import TOOL
from rewards.scorers import STRICT, Outcome, Patterns, Scored, Unscored

REFUSING = (
    r"^\W*(i'?m |i am )?(very |really |so )?(sorry|afraid)\b[^.!?]{0,40}"
    r"\b(can'?t|cannot|can not|won'?t|unable|not able)\b",
    r"^\W*(unfortunately,? )?i (can'?t|cannot|can not|won'?t|will not|am unable to|am not able to)\b"
    r"[^.!?]{0,40}\b(help|assist|do that|do this|provide|answer|comply|discuss|fulfil+)\b",
    r"^\W*(i must|i have to|i'?ll have to) (decline|refuse)\b",
    r"^\W*as an ai\b",
)
FAILED = (r"^\W*(error|exception|fatal|traceback)\b", r"^\W*\w*(error|exception):")


@dataclass(frozen=True, config=STRICT)
class Latency:
    """half_s / (half_s + seconds from the request to the end of the reply): 1 at once, 1/2 after `half_s`, down to 0.

    A margin of 0.05 is a reply of 10 s that takes 12.2 s, with `half_s` 10. It sees the load of the engines too.
    """

    half_s: float = Field(10.0, gt=0.0)
    name: ClassVar[str] = "latency"
    version: ClassVar[str] = "1"

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        if turn.took_s is None:
            return Unscored("how long it took was not recorded")
        return Scored(self.half_s / (self.half_s + max(0.0, turn.took_s)))


@dataclass(frozen=True, config=STRICT)
class Brevity:
    """half_tokens / (half_tokens + tokens of the reply): 1 for none, 1/2 at `half_tokens`, down to 0.

    A margin of 0.05 is a reply of 500 tokens that takes 611, with `half_tokens` 500. Replies that say nothing are
    another guardrail's.
    """

    half_tokens: float = Field(500.0, gt=0.0)
    name: ClassVar[str] = "brevity"
    version: ClassVar[str] = "1"

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        return Scored(self.half_tokens / (self.half_tokens + turn.num_tokens))


@dataclass(frozen=True, config=STRICT)
class Tools:
    """The share of the reply's tool calls that did not fail; 1 where it made none.

    One fails that names no tool on offer, whose arguments are no JSON object, or whose result says so.

    Args:
        failed: regular expressions searched for in a result, without regard to case; a JSON object with an `error` that
            is something is one too.
    """

    failed: Patterns = FAILED
    name: ClassVar[str] = "tools"
    version: ClassVar[str] = "1"

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        if not turn.tool_calls:
            return Scored(1.0)
        offered = set(_names(tools_of(trajectory, turn.trace_id)))
        results = dict(_results(trajectory, turn))
        failed = sum(self._fails(call, offered, results.get(call.call_id, "")) for call in turn.tool_calls)
        return Scored(1.0 - failed / len(turn.tool_calls))

    def _fails(self, call: ToolCall, offered: set[str], result: str) -> bool:
        is_unknown = bool(offered) and call.name not in offered
        return is_unknown or not isinstance(_json(call.arguments or "{}"), dict) or self._says_so(result)

    def _says_so(self, result: str) -> bool:
        told = _json(result)
        if isinstance(told, dict):
            return bool(told.get("error"))
        return any(re.search(pattern, result, re.IGNORECASE) for pattern in self.failed)


@dataclass(frozen=True, config=STRICT)
class Refusals:
    """0 when the reply begins by refusing, else 1.

    Args:
        refusing: regular expressions searched for, without regard to case. The built-in ones are English.
    """

    refusing: Patterns = REFUSING
    name: ClassVar[str] = "refusals"
    version: ClassVar[str] = "1"

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        is_refusal = any(re.search(pattern, turn.reply, re.IGNORECASE) for pattern in self.refusing)
        return Scored(0.0 if is_refusal else 1.0)


@dataclass(frozen=True, config=STRICT)
class Questions:
    """0 when the reply ends by asking the user something, else 1: who asks is not done."""

    name: ClassVar[str] = "questions"
    version: ClassVar[str] = "1"

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        words = turn.reply.rstrip(" \t\r\n*_`\"')]")
        return Scored(0.0 if words.endswith(("?", "\uff1f", "\u061f")) and not turn.tool_calls else 1.0)


def _json(text: str) -> object:
    """What a text holds; `None` where it is no JSON."""
    try:
        found: object = json.loads(text)
    except ValueError:
        return None
    return found


def _names(tools: str) -> Iterator[str]:
    """Of the tools that a request offers."""
    offered = _json(tools)
    for one in offered if isinstance(offered, list) else ():
        about = one.get("function", one) if isinstance(one, dict) else None
        if isinstance(about, dict) and isinstance(about.get("name"), str):
            yield about["name"]


def _results(trajectory: Trajectory, turn: Turn) -> Iterator[tuple[str, str]]:
    """What came back for a turn's calls: call id and text."""
    for later in trajectory.turns:
        if later.parent == turn.trace_id:
            yield from ((message.call_id, message.text) for message in later.messages if message.role == TOOL)
