"""The zoo's users: one question each, a thumb by what they think of the reply, and an end of the session."""

import asyncio
import random
import uuid

import httpx
from talk import Topic, is_liked, question

MAX_TOKENS = 96
_THUMB_SHARE = 0.8


class Visitors:
    """`size` users at a time, until `over`. `topics` is what they talk about; it may be changed while they come."""

    def __init__(self, url: str, model: str, size: int) -> None:
        self._url, self._model, self._size = url, model, size
        self.topics: tuple[Topic, ...] = (Topic.WEATHER, Topic.TRAINS)
        self.over = False
        self.sessions = 0
        self.failed: list[str] = []

    async def run(self) -> None:
        """Return once the last session is over."""
        limits = httpx.Limits(max_connections=self._size)
        async with httpx.AsyncClient(base_url=self._url, timeout=60.0, limits=limits) as client:
            await asyncio.gather(*(self._seat(client, seed) for seed in range(self._size)))

    async def _seat(self, client: httpx.AsyncClient, seed: int) -> None:
        rng = random.Random(seed)
        while not self.over:
            try:
                await self._visit(client, rng)
                self.sessions += 1
            except (httpx.HTTPError, KeyError) as exc:
                self.failed.append(f"{type(exc).__name__}: {exc}")

    async def _visit(self, client: httpx.AsyncClient, rng: random.Random) -> None:
        session = f"visitor-{uuid.UUID(int=rng.getrandbits(128)).hex}"
        asked = [{"role": "user", "content": question(rng.choice(self.topics), rng)}]
        body = {"model": self._model, "messages": asked, "max_tokens": MAX_TOKENS, "user": session}
        answer = await client.post("/v1/chat/completions", json=body, headers={"x-onstream-session": session})
        answer.raise_for_status()
        reply = answer.json()
        if rng.random() < _THUMB_SHARE:
            liked = is_liked(reply["choices"][0]["message"]["content"])
            await self._tell(client, {"id": reply["id"], "name": "thumb", "value": 1.0 if liked else -1.0})
        await self._tell(client, {"session": session, "name": "session_end", "value": 0.0})

    async def _tell(self, client: httpx.AsyncClient, feedback: dict[str, object]) -> None:
        (await client.post("/v1/feedback", json=feedback)).raise_for_status()
