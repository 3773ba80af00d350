"""Simulated users: people who like short answers, talking to the endpoint through the ordinary `openai` client.

Nobody tells the system what they like. It sees what real traffic gives: the next message, and now and then a thumb.
"""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from openai import AsyncOpenAI, OpenAIError
from questions import QUESTIONS

SYSTEM = "Answer in one short sentence."
MAX_TOKENS = 64
LIKED_WORDS = 34  # a longer answer, or one that never ends, displeases
TURNS = (2, 3)
THUMB_SHARE = 0.7
SLIP_SHARE = 0.08  # thumbs that miss what their user thinks
PLEASED = ("Thanks! {}", "Great. {}", "Perfect, thank you. {}")
DISPLEASED = ("That was too long. {}", "Shorter, please. {}", "Too wordy. {}")


@dataclass
class Experience:
    """What users went through. Times in seconds."""

    requests: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    replies: int = 0
    pleased: int = 0
    thumbs: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    latencies_s: list[float] = field(default_factory=list)
    longest_gap_s: float = 0.0
    recent: list[tuple[float, bool]] = field(default_factory=list)
    last_words: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def note(self, reply: str, is_pleased: bool) -> None:
        self.replies += 1
        self.pleased += is_pleased
        self.recent.append((time.time(), is_pleased))
        self.last_words = [*self.last_words[-3:], f"{'+' if is_pleased else '-'} {reply[:70]!r}"]

    def pleased_share(self, window_s: float) -> float | None:
        """Share of replies that pleased, over the last `window_s`."""
        since = time.time() - window_s
        marks = [is_pleased for at, is_pleased in self.recent if at >= since]
        return sum(marks) / len(marks) if marks else None


def likes(reply: str, finish_reason: str | None) -> bool:
    """The preference nobody told the system about."""
    return finish_reason == "stop" and 3 <= len(reply.split()) <= LIKED_WORDS


class Crowd:
    """`size` users at a time, each with a conversation of two or three questions, until stopped."""

    def __init__(self, base_url: str, model: str, size: int, seed: int, is_done: Callable[[], bool]) -> None:
        self._client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=120.0)
        self._feedback = httpx.AsyncClient(base_url=base_url, timeout=30.0)
        self._model, self._size, self._is_done = model, size, is_done
        self._random = random.Random(seed)
        self.experience = Experience()

    async def run(self) -> None:
        """Return once every conversation begun before the end is over."""
        try:
            await asyncio.gather(*(self._seat() for _ in range(self._size)))
        finally:
            await self._client.close()
            await self._feedback.aclose()

    async def _seat(self) -> None:
        await asyncio.sleep(self._random.uniform(0.0, 4.0))
        while not self._is_done():
            await self._converse()
            self.experience.sessions += 1

    async def _converse(self) -> None:
        session = f"demo-{uuid.uuid4().hex[:12]}"
        messages = [{"role": "system", "content": SYSTEM}]
        opening = "{}"
        for _ in range(self._random.choice(TURNS)):
            question = self._random.choice(QUESTIONS)
            self.experience.asked.add(question)
            messages.append({"role": "user", "content": opening.format(question)})
            reply = await self._ask(session, messages)
            if reply is None:
                return
            completion_id, text, finish_reason = reply
            messages.append({"role": "assistant", "content": text})
            is_pleased = likes(text, finish_reason)
            self.experience.note(text, is_pleased)
            if self._random.random() < THUMB_SHARE:
                await self._thumb(completion_id, is_pleased)
            opening = self._random.choice(PLEASED if is_pleased else DISPLEASED)
            await asyncio.sleep(self._random.uniform(0.5, 2.5))

    async def _ask(self, session: str, messages: list[dict[str, str]]) -> tuple[str, str, str | None] | None:
        self.experience.requests += 1
        begun = time.monotonic()
        try:
            if self._random.random() < 0.5:
                answer = await self._stream(session, messages)
            else:
                answer = await self._whole(session, messages)
        except (OpenAIError, httpx.HTTPError) as exc:
            self.experience.failed += 1
            self.experience.failures.append(f"{type(exc).__name__}: {exc}")
            return None
        self.experience.latencies_s.append(time.monotonic() - begun)
        return answer

    def _request(self, session: str, messages: list[dict[str, str]]) -> dict[str, object]:
        return {
            "model": self._model,
            "messages": messages,
            "max_tokens": MAX_TOKENS,
            "extra_headers": {"x-onstream-session": session},
        }

    async def _whole(self, session: str, messages: list[dict[str, str]]) -> tuple[str, str, str | None]:
        done = await self._client.chat.completions.create(**self._request(session, messages))  # type: ignore[call-overload]
        choice = done.choices[0]
        return done.id, choice.message.content or "", choice.finish_reason

    async def _stream(self, session: str, messages: list[dict[str, str]]) -> tuple[str, str, str | None]:
        chunks = await self._client.chat.completions.create(**self._request(session, messages), stream=True)  # type: ignore[call-overload]
        completion_id, parts, finish_reason = "", [], None
        last = None
        async for chunk in chunks:
            now = time.monotonic()
            if last is not None:
                self.experience.longest_gap_s = max(self.experience.longest_gap_s, now - last)
            last = now
            completion_id = chunk.id
            if chunk.choices:
                parts.append(chunk.choices[0].delta.content or "")
                finish_reason = chunk.choices[0].finish_reason or finish_reason
        if finish_reason is None:
            raise httpx.RemoteProtocolError("the stream ended without a finish reason")
        return completion_id, "".join(parts), finish_reason

    async def _thumb(self, completion_id: str, is_pleased: bool) -> None:
        is_up = is_pleased != (self._random.random() < SLIP_SHARE)
        answer = await self._feedback.post("/feedback", json={"id": completion_id, "value": 1 if is_up else -1})
        if answer.status_code != 202:
            self.experience.failed += 1
            self.experience.failures.append(f"feedback: {answer.status_code} {answer.text}")
            return
        self.experience.thumbs["up" if is_up else "down"] += 1
