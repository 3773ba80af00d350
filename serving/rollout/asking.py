"""Asking the engines of an arm at their users' port, behind users: answers that are surely of the version asked for.

An engine that fails is tried again, or the next one of its arm, while there is time. A request lives on through a swap,
so an answer is one version's alone where the engine served that before and after it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from infra.config import EngineSlot
from infra.errors import OnstreamError
from infra.lifecycle import Deadline, backoff_s

_ASK_S = 5.0
_ANSWER_S = 120.0  # 100 times what a short reply of a busy small engine takes; a hung engine costs no more
_TRY_AGAIN = frozenset({408, 409, 425, 429})
_SERVER_ERROR = 500
SHOWN = 200


class CheckError(OnstreamError, RuntimeError):
    """A check before users meet the candidate could not run to its end."""


def first_of(errors: BaseExceptionGroup[CheckError]) -> CheckError:
    """One of several that happened together, for people."""
    one = errors.exceptions[0]
    return first_of(one) if isinstance(one, BaseExceptionGroup) else one


@dataclass(frozen=True)
class Endpoint:
    """Where an arm answers, and whether it serves now what it shall."""

    url: str
    is_ready: Callable[[], Awaitable[bool]]


async def always() -> bool:
    """Of an endpoint that serves whatever it serves."""
    return True


def engines(slots: Sequence[EngineSlot], version: int, token: str, client: httpx.AsyncClient) -> tuple[Endpoint, ...]:
    """The endpoints of engines that shall serve `version`; their control ports, asked with `token`, say whether."""

    def holding(slot: EngineSlot) -> Callable[[], Awaitable[bool]]:
        async def holds() -> bool:
            url, bearer = f"http://{slot.host}:{slot.control_port}/status", {"authorization": f"Bearer {token}"}
            try:
                answer = await client.get(url, headers=bearer, timeout=_ASK_S)
                return bool(answer.is_success and answer.json()["version"] == version)
            except (httpx.TransportError, ValueError, KeyError):
                return False

        return holds

    return tuple(Endpoint(f"http://{slot.host}:{slot.port}", holding(slot)) for slot in slots)


@dataclass
class Asker:
    """Asks one arm. Requests go round its endpoints."""

    client: httpx.AsyncClient
    endpoints: Sequence[Endpoint]
    deadline: Deadline
    bearer: str = ""
    _turn: int = field(default=0, init=False)

    async def post(
        self, path: str, body: Mapping[str, Any], headers: Callable[[], Mapping[str, str]] = dict
    ) -> httpx.Response:
        """An answer that is no failure of the endpoint's: success, or status 4xx. `headers` are made for each attempt.

        Raises:
            CheckError: none came in time.
        """
        last, waits = "nothing was asked", backoff_s(0.2, 5.0)
        while not self.deadline.passed():
            endpoint = self.endpoints[self._turn % len(self.endpoints)]
            self._turn += 1
            answer = await self._attempt(endpoint, path, body, headers())
            if isinstance(answer, httpx.Response):
                return answer
            last = f"{endpoint.url}: {answer}"
            await asyncio.sleep(min(next(waits), self.deadline.left_s()))
        raise CheckError(f"no answer in time: {last}")

    async def _attempt(
        self, endpoint: Endpoint, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> httpx.Response | str:
        """The answer, or why there is none to be used."""
        if not await endpoint.is_ready():
            return "it does not serve the version that is asked for"
        bearer = {"authorization": f"Bearer {self.bearer}"} if self.bearer else {}
        left_s = min(_ANSWER_S, self.deadline.left_s())
        try:
            answer = await self.client.post(
                endpoint.url + path, json=body, headers=bearer | dict(headers), timeout=left_s
            )
        except httpx.TransportError as exc:
            return f"{type(exc).__name__}: {exc}".rstrip(": ")
        if answer.status_code >= _SERVER_ERROR or answer.status_code in _TRY_AGAIN:
            return f"status {answer.status_code}: {answer.text[:SHOWN]}"
        return answer if await endpoint.is_ready() else "it changed its version meanwhile"
