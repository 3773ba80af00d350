"""What all simulated clients share: the ordinary `openai` client, feedback, and a book of what they went through."""

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from openai import AsyncOpenAI, OpenAIError

SESSION = "x-onstream-session"
STREAMED_SHARE = 0.5


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


@dataclass(frozen=True)
class Answer:
    """A completion as its client sees it. `num_tokens` are those of prompt and reply, from its `usage`."""

    completion_id: str
    text: str
    finish_reason: str | None
    num_tokens: int


class Crowd(ABC):
    """`size` clients at a time, each with one session after the other, until stopped."""

    max_start_s = 4.0

    def __init__(self, base_url: str, model: str, size: int, seed: int, is_done: Callable[[], bool]) -> None:
        self._client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=120.0)
        self._feedback = httpx.AsyncClient(base_url=base_url, timeout=30.0)
        self._model, self._size, self._is_done = model, size, is_done
        self._random = random.Random(seed)
        self.experience = Experience()

    async def run(self) -> None:
        """Return once every session begun before the end is over."""
        try:
            await asyncio.gather(*(self._seat() for _ in range(self._size)))
        finally:
            await self._client.close()
            await self._feedback.aclose()

    async def _seat(self) -> None:
        await asyncio.sleep(self._random.uniform(0.0, self.max_start_s))
        while not self._is_done():
            await self._session()
            self.experience.sessions += 1

    @abstractmethod
    async def _session(self) -> None:
        """One session, from its first request to its feedback."""

    async def _ask(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int,
        headers: Mapping[str, str],
        temperature: float | None = None,
    ) -> Answer | None:
        """One completion, half of them streamed; `None` where it failed, which is noted."""
        self.experience.requests += 1
        begun = time.monotonic()
        request = {
            "model": self._model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "extra_headers": dict(headers),
        } | ({} if temperature is None else {"temperature": temperature})
        try:
            is_streamed = self._random.random() < STREAMED_SHARE
            answer = await (self._stream(request) if is_streamed else self._whole(request))
        except (OpenAIError, httpx.HTTPError) as exc:
            self._failed(f"{type(exc).__name__}: {exc}")
            return None
        self.experience.latencies_s.append(time.monotonic() - begun)
        return answer

    async def _whole(self, request: dict[str, Any]) -> Answer:
        done = await self._client.chat.completions.create(**request)
        choice = done.choices[0]
        return Answer(done.id, choice.message.content or "", choice.finish_reason, done.usage.total_tokens)

    async def _stream(self, request: dict[str, Any]) -> Answer:
        options = {"include_usage": True}
        chunks = await self._client.chat.completions.create(**request, stream=True, stream_options=options)
        completion_id, parts, finish_reason, num_tokens = "", [], None, 0
        last = None
        async for chunk in chunks:
            now = time.monotonic()
            if last is not None:
                self.experience.longest_gap_s = max(self.experience.longest_gap_s, now - last)
            last = now
            completion_id = chunk.id
            if chunk.usage:
                num_tokens = chunk.usage.total_tokens
            if chunk.choices:
                parts.append(chunk.choices[0].delta.content or "")
                finish_reason = chunk.choices[0].finish_reason or finish_reason
        if finish_reason is None:
            raise httpx.RemoteProtocolError("the stream ended without a finish reason")
        return Answer(completion_id, "".join(parts), finish_reason, num_tokens)

    async def _tell(self, feedback: Mapping[str, Any]) -> bool:
        """Post feedback; whether it was taken."""
        answer = await self._feedback.post("/feedback", json=dict(feedback))
        if answer.status_code != 202:
            self._failed(f"feedback: {answer.status_code} {answer.text}")
        return answer.status_code == 202

    def _failed(self, why: str) -> None:
        self.experience.failed += 1
        self.experience.failures.append(why)
