"""An engine's scoring port: likelihoods and samples for scorers, behind users, never captured.

The routes and their words are those of `ingest.records.questions`. Two promises hold here:

    users first      a piece of work begins only while no user's request is in flight, is short (`Pace`), and is
                     given up when a user arrives (`serving.engine.idle`)
    one version      all that one answer holds was computed under the same weights: when a swap came between, all of
                     it is computed again
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from infra.lifecycle import Deadline
from ingest.records.questions import (
    RENDER,
    SAMPLE,
    SCORE,
    Prompt,
    Query,
    Rendered,
    RenderRequest,
    Sampled,
    SampleRequest,
    Samples,
    ScoreRequest,
    Scores,
)
from serving.engine.idle import BusyError, Users, behind
from serving.engine.pieces import Piece, Tokens, warming, waves
from serving.guard import bearer
from serving.leaving import while_there

# Users who talk all the time leave no idle moment; whoever asks here may then ask another engine, or later. Half a
# minute is longer than nearly every reply, and half of what a client waits (`rewards.summary.engines.TIMEOUT_S`).
PATIENCE_S = 30.0
# A user who arrives while a piece is in work waits for its end: about this long, which nobody notices before a first
# word. Shorter pieces would spend more of their time on being started.
PIECE_S = 0.2
_MOST_TOKENS = 8192

Q = TypeVar("Q", bound=BaseModel)
R = TypeVar("R")


class Model(Protocol):
    """What scoring needs of an engine. `block` and `max_len` are in tokens."""

    @property
    def block(self) -> int: ...

    @property
    def max_len(self) -> int: ...

    def render(self, prompt: Prompt) -> Tokens:
        """Raises `ValueError` where the chat template refuses the messages."""

    async def warm(self, token_ids: Tokens) -> int:
        """Bring `token_ids` into the prefix cache; how many had to be computed."""

    async def logps(self, token_ids: Tokens, start: int, then: int | None) -> tuple[list[float], int]:
        """Log-probabilities of `token_ids[start:]` and of `then` after them, and how many tokens had to be computed."""

    async def sample(self, token_ids: Tokens, num: int, max_tokens: int) -> tuple[Sampled, ...]:
        """`num` continuations at temperature 1."""


class Weights(Protocol):
    """Which weights compute now. `epoch` changes with every swap, also with one that fails."""

    version: int
    epoch: int


class Pace:
    """How many tokens make a piece of `PIECE_S` on this machine: found by doubling and halving."""

    def __init__(self, block: int) -> None:
        self._least = self.limit = block

    def note(self, num_tokens: int, seconds: float) -> None:
        """A piece of so many tokens took so long. What came mostly from the cache says nothing."""
        if 2 * num_tokens < self.limit:
            return
        if seconds > PIECE_S:
            self.limit = max(self._least, self.limit // 2)
        elif seconds < PIECE_S / 3:
            self.limit = min(_MOST_TOKENS, self.limit * 2)


class Scoring:
    """Answers one question at a time. Others wait for it, and no longer than their patience."""

    def __init__(self, model: Model, weights: Weights, users: Users) -> None:
        self._model, self._weights, self._users = model, weights, users
        self._pace, self._turn = Pace(model.block), asyncio.Lock()

    async def render(self, question: RenderRequest) -> Rendered:
        """Raises `BusyError`, and `ValueError` for messages that the template refuses."""
        patience = Deadline.after(PATIENCE_S)
        return Rendered(token_ids=tuple([await self._render(prompt, patience) for prompt in question.prompts]))

    async def score(self, question: ScoreRequest) -> Scores:
        """Raises `BusyError`, and `ValueError` for what does not fit the model."""
        patience = Deadline.after(PATIENCE_S)
        async with _held(self._turn, patience):
            asked = [(await self._render(query.prompt, patience), query.token_ids) for query in question.queries]
            for prompt, continuation in asked:
                self._require_fits(len(prompt) + len(continuation) + 1)
            version, (logps, num_tokens) = await self._under_one_version(lambda: self._logps(asked, patience), patience)
        sums = tuple(_sums(query, found) for query, found in zip(question.queries, logps, strict=True))
        return Scores(version=version, logps=sums, num_tokens=num_tokens)

    async def sample(self, question: SampleRequest) -> Samples:
        """Raises `BusyError` unless it can begin at once and no user comes before its end."""
        now = Deadline.after(0.0)
        async with _held(self._turn, now):
            prompts = [await self._render(prompt, now) for prompt in question.prompts]
            for prompt in prompts:
                self._require_fits(len(prompt) + question.max_tokens)

            async def draw() -> list[tuple[Sampled, ...]]:
                return [await self._draw(prompt, question, now) for prompt in prompts]

            version, samples = await self._under_one_version(draw, now)
        return Samples(version=version, samples=tuple(samples))

    async def _render(self, prompt: Prompt, patience: Deadline) -> Tokens:
        """In a thread: templates are slow, and the loop here is the one that passes on users' tokens.

        A thread cannot be ended: a prompt under way when a user arrives is rendered to its end.
        """
        return await behind(self._users, lambda: asyncio.to_thread(self._model.render, prompt), patience)

    def _require_fits(self, num_tokens: int) -> None:
        if num_tokens > self._model.max_len:
            raise ValueError(f"a prompt and what follows it may have {self._model.max_len} tokens, got {num_tokens}")

    async def _under_one_version(self, work: Callable[[], Awaitable[R]], patience: Deadline) -> tuple[int, R]:
        while True:
            version, epoch = self._weights.version, self._weights.epoch
            result = await work()
            if self._weights.epoch == epoch:
                return version, result
            if patience.passed():
                raise BusyError("busy with a swap of weights")

    async def _logps(self, asked: Sequence[tuple[Tokens, Tokens]], patience: Deadline) -> tuple[list[list[float]], int]:
        found: list[list[float]] = [[] for _ in asked]
        num_tokens = 0
        for wave in waves(asked, self._model.block, self._pace.limit):
            for piece, (logps, num_computed) in zip(wave, await self._run(wave, patience), strict=True):
                num_tokens += num_computed
                if piece.question is not None:
                    found[piece.question] += logps
        return found, num_tokens

    async def _run(self, wave: Sequence[Piece], patience: Deadline) -> list[tuple[list[float], int]]:
        async def one(piece: Piece) -> tuple[list[float], int]:
            if piece.question is None:
                return [], await self._model.warm(piece.token_ids)
            return await self._model.logps(piece.token_ids, piece.start, piece.then)

        async def together() -> list[tuple[list[float], int]]:
            begun = time.monotonic()
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(piece)) for piece in wave]
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from failed
            results = [task.result() for task in tasks]
            self._pace.note(sum(num for _, num in results), time.monotonic() - begun)
            return results

        return await behind(self._users, together, patience)

    async def _draw(self, prompt: Tokens, question: SampleRequest, now: Deadline) -> tuple[Sampled, ...]:
        for wave in warming(prompt, self._model.block, self._pace.limit):
            await self._run(wave, now)
        return await behind(self._users, lambda: self._model.sample(prompt, question.num, question.max_tokens), now)


def _sums(query: Query, logps: Sequence[float]) -> tuple[float, ...]:
    return tuple(sum(logps[start:end]) for start, end in query.spans)


@asynccontextmanager
async def _held(lock: asyncio.Lock, patience: Deadline) -> AsyncIterator[None]:
    """The lock for the length of a block, or `BusyError` where it is not had in time."""
    if lock.locked():
        try:
            await asyncio.wait_for(lock.acquire(), patience.left_s())
        except TimeoutError as exc:
            raise BusyError("busy with other questions") from exc
    else:
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()


def application(scoring: Scoring, token: str) -> Starlette:
    """The scoring application: `POST /render`, `/score` and `/sample`, each with `Authorization: Bearer`."""

    def route(path: str, kind: type[Q], answer: Callable[[Q], Coroutine[Any, Any, BaseModel]]) -> Route:
        async def handle(request: Request) -> JSONResponse:
            try:
                given = await while_there(request, answer(kind.model_validate_json(await request.body())))
            except ClientDisconnect:
                return JSONResponse({"error": "the client is gone"}, 499)
            except ValidationError as exc:
                return JSONResponse({"error": f"{path}: {_told(exc)}"}, 400)
            except ValueError as exc:
                return JSONResponse({"error": str(exc)}, 400)
            except BusyError as exc:
                return JSONResponse({"error": str(exc)}, 503)
            return JSONResponse(given.model_dump(mode="json"))

        return Route(path, bearer(handle, token, "scoring"), methods=["POST"])

    return Starlette(
        routes=[
            route(RENDER, RenderRequest, scoring.render),
            route(SCORE, ScoreRequest, scoring.score),
            route(SAMPLE, SampleRequest, scoring.sample),
        ]
    )


def _told(wrong: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg'].removeprefix('Value error, ')}"
        for error in wrong.errors()[:3]
    )
