"""Likelihoods from the engines that serve: what scorers may ask. The words are those of `ingest.records.questions`."""

from collections.abc import Sequence
from typing import Protocol

from infra.errors import OnstreamError
from ingest.records.questions import Prompt, Query, Sampled, Scores


class UnavailableError(OnstreamError, ConnectionError):
    """No engine answered in time: away, or busy with users. Worth asking again later."""


class Likelihoods(Protocol):
    """What an engine's scoring port answers. Each raises `UnavailableError` when no engine answers in time."""

    async def render(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        """Token ids of each prompt."""

    async def score(self, queries: Sequence[Query]) -> Scores:
        """Per query, the summed log-probability of each of its spans. All under one version."""

    async def sample(self, prompts: Sequence[Prompt], num: int, max_tokens: int) -> list[tuple[Sampled, ...]]:
        """`num` continuations of each prompt, each at most `max_tokens` long. Never waits: only where one is idle."""
