"""What a turn was set up to do, as far as records tell: its task is its system prompt; and the tools it may call. Pure.

Both are digests: what a baseline is keyed by is kept for long, and holds no content.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import takewhile

from ingest.records.events import Trajectory, Turn
from ingest.sessions.history import turns_by_id
from ingest.sessions.messages import PREAMBLE

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Setup:
    """Sixteen hex digits each; empty where there is no system prompt, or there are no tools."""

    task: str = ""
    tools: str = ""


def setups(trajectory: Trajectory) -> dict[str, Setup]:
    """The setup of every turn of a session, by trace id. Turns that go on from another have its system prompt."""
    known, found = turns_by_id(trajectory), dict[str, Setup]()
    for turn in trajectory.turns:
        line = list(takewhile(lambda elder: elder.trace_id not in found, _upwards(turn, known)))
        for elder in reversed(line):
            before = found.get(elder.parent or "")
            tools = digest(" ".join(_names(elder.tools)))
            found[elder.trace_id] = Setup(before.task, tools or before.tools) if before else Setup(_task(elder), tools)
    return found


def digest(text: str) -> str:
    """Of a text; empty of an empty one. Runs of digits are alike: a date does not make a task another one."""
    return blake2b(_DIGITS.sub("0", text).encode(), digest_size=8).hexdigest() if text else ""


def _upwards(turn: Turn, known: dict[str, Turn]) -> Iterator[Turn]:
    """A turn and those it goes on from, each once."""
    met = set[str]()
    while turn.trace_id not in met:
        met.add(turn.trace_id)
        yield turn
        turn = known.get(turn.parent or "", turn)


def _task(turn: Turn) -> str:
    return digest("\n".join(message.text for message in turn.messages if message.role in PREAMBLE))


def _names(tools: str) -> list[str]:
    """Of the tools in a request's JSON, in order of the alphabet; another form's text stands for itself."""
    try:
        given = json.loads(tools or "[]")
    except ValueError:
        return [tools]
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        return [tools]
    inner = [one["function"] if isinstance(one.get("function"), dict) else one for one in given]
    return sorted(str(one.get("name", one.get("type", ""))) for one in inner)
