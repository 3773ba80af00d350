"""Likelihoods over HTTP, from the scoring ports of the engines that serve."""

import os
from collections.abc import Mapping, Sequence
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from infra.config import SCORING_TOKEN_VAR, Config
from infra.errors import StartError
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
from rewards.summary.likelihood import UnavailableError

# An engine that finds no idle moment for 30 s says 503 (`serving.engine.scoring.PATIENCE_S`); a question in work by
# then is finished, and that may be 10,000 tokens at the 300 a second that one slow core scores.
TIMEOUT_S = 65.0
_CONNECT_S = 2.0
# Sampling asks for idle time only: what does not begin at once is refused at once, what began has this long.
_SAMPLE_S = 30.0

_Answer = TypeVar("_Answer", bound=BaseModel)


class EngineLikelihoods:
    """Asks one engine after another, beginning with the next in turn, until one answers."""

    def __init__(self, urls: Sequence[str], token: str, timeout_s: float = TIMEOUT_S) -> None:
        """`urls` are scoring ports, such as `http://127.0.0.1:8201`; `timeout_s` is for each engine asked."""
        self._urls, self._next = tuple(urls), 0
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {token}"}, timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S)
        )

    async def render(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        answer = await self._ask(RENDER, RenderRequest(prompts=tuple(prompts)), Rendered)
        return list(answer.token_ids)

    async def score(self, queries: Sequence[Query]) -> Scores:
        return await self._ask(SCORE, ScoreRequest(queries=tuple(queries)), Scores)

    async def sample(self, prompts: Sequence[Prompt], num: int, max_tokens: int) -> list[tuple[Sampled, ...]]:
        question = SampleRequest(prompts=tuple(prompts), num=num, max_tokens=max_tokens)
        answer = await self._ask(SAMPLE, question, Samples, _SAMPLE_S)
        return list(answer.samples)

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, path: str, question: BaseModel, kind: type[_Answer], most_s: float | None = None) -> _Answer:
        """The first answer of an engine. Raises `UnavailableError` with what each said when none gave one, and
        `ValueError` when one finds the question itself wrong, as all would."""
        body, told = question.model_dump_json(), []
        for url in self._in_turn():
            timeout = httpx.USE_CLIENT_DEFAULT if most_s is None else httpx.Timeout(most_s, connect=_CONNECT_S)
            try:
                answer = await self._client.post(f"{url}{path}", content=body, timeout=timeout)
            except httpx.TransportError as exc:
                told.append(f"{url}: {str(exc) or type(exc).__name__}")
                continue
            if answer.status_code == httpx.codes.BAD_REQUEST:
                raise ValueError(f"{url}{path}: {_reason(answer)}")
            if answer.is_success:
                try:
                    return kind.model_validate_json(answer.content)
                except ValidationError as exc:
                    told.append(f"{url}: not {kind.__name__}: {exc.errors()[0]['msg']}")
                    continue
            told.append(f"{url}: {_reason(answer)}")
        raise UnavailableError(f"{path}: no engine answered: {'; '.join(told) or 'none has a scoring port'}")

    def _in_turn(self) -> tuple[str, ...]:
        if not self._urls:
            return ()
        begin = self._next % len(self._urls)
        self._next += 1
        return self._urls[begin:] + self._urls[:begin]


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):  # not from a scoring port
        return f"status {answer.status_code}"


def of(config: Config, environ: Mapping[str, str] = os.environ) -> EngineLikelihoods | None:
    """A client of the configuration's scoring ports; none where no engine has one.

    Raises:
        StartError: there are scoring ports, and no credential for them.
    """
    urls = [f"http://{slot.host}:{slot.scoring_port}" for slot in config.serving.engines if slot.scoring_port]
    if not urls:
        return None
    token = environ.get(SCORING_TOKEN_VAR, "")
    if not token:
        raise StartError(f"{SCORING_TOKEN_VAR} is not set: engines and rewards share it as their credential")
    return EngineLikelihoods(urls, token)
