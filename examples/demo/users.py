"""Simulated users: people who like short answers, talking to the endpoint through the ordinary `openai` client.

Nobody tells the system what they like, nor when they change their mind. It sees what real traffic gives: the next
message, and now and then a thumb.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from crowd import SESSION, Crowd
from questions import QUESTIONS

SYSTEM = "Answer in one short sentence."
MAX_TOKENS = 64
LIKED_WORDS = 34  # a longer answer, or one that never ends, displeases
TURNS = (2, 3)
THUMB_SHARE = 0.7
SLIP_SHARE = 0.08  # thumbs that miss what their user thinks
PLEASED = ("Thanks! {}", "Great. {}", "Perfect, thank you. {}")


def is_short(reply: str, finish_reason: str | None) -> bool:
    """A sentence or two that came to an end."""
    return finish_reason == "stop" and 3 <= len(reply.split()) <= LIKED_WORDS


def is_long(reply: str, finish_reason: str | None) -> bool:
    """More than that, and be it cut off."""
    return len(reply.split()) > LIKED_WORDS


@dataclass(frozen=True)
class Taste:
    """A preference nobody told the system about, and what they say who were displeased."""

    told: str
    likes: Callable[[str, str | None], bool]
    displeased: tuple[str, ...]


SHORT = Taste("short answers", is_short, ("That was too long. {}", "Shorter, please. {}", "Too wordy. {}"))
LONG = Taste("long answers", is_long, ("That was too short. {}", "Longer, please. {}", "Too terse. {}"))


class Users(Crowd):
    """Users, each with a conversation of a few questions."""

    def __init__(self, *given: Any, turns: Sequence[int] = TURNS) -> None:
        super().__init__(*given)
        self._turns = turns
        self.taste = SHORT
        self.turned_at: float | None = None  # Unix time

    def turn(self) -> None:
        """From now on they like what they disliked."""
        self.taste, self.turned_at = LONG, time.time()

    async def _session(self) -> None:
        headers = {SESSION: f"demo-{uuid.uuid4().hex[:12]}"}
        messages = [{"role": "system", "content": SYSTEM}]
        opening = "{}"
        for _ in range(self._random.choice(self._turns)):
            question = self._random.choice(QUESTIONS)
            self.experience.asked.add(question)
            messages.append({"role": "user", "content": opening.format(question)})
            answer = await self._ask(messages, MAX_TOKENS, headers)
            if answer is None:
                return
            messages.append({"role": "assistant", "content": answer.text})
            taste = self.taste
            is_pleased = taste.likes(answer.text, answer.finish_reason)
            self.experience.note(answer.text, is_pleased)
            if self._random.random() < THUMB_SHARE:
                await self._thumb(answer.completion_id, is_pleased)
            opening = self._random.choice(PLEASED if is_pleased else taste.displeased)
            await asyncio.sleep(self._random.uniform(0.5, 2.5))

    async def _thumb(self, completion_id: str, is_pleased: bool) -> None:
        is_up = is_pleased != (self._random.random() < SLIP_SHARE)
        if await self._tell({"id": completion_id, "value": 1 if is_up else -1}):
            self.experience.thumbs["up" if is_up else "down"] += 1
