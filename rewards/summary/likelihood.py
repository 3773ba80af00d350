"""Likelihoods from the engines that serve: what scorers may ask, and the client that asks over HTTP.

Every engine with a `scoring_port` answers, behind its users and behind a credential of its own, three questions:

    render    messages -> the token ids that its chat template makes of them
    score     log-probability of given tokens after given messages, in nats, summed over spans
    sample    continuations of given messages

Nothing asked here is captured: a scorer's questions are not what users said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from infra.errors import OnstreamError
from ingest.events import ChatMessage


class UnavailableError(OnstreamError, ConnectionError):
    """No engine answered in time: away, or busy with users. Worth asking again later."""


@dataclass(frozen=True)
class Prompt:
    """Messages as a chat template renders them; `tools` is the JSON text of the tools offered, or empty.

    `is_open` ends it with the template's generation prompt, as before a reply.
    """

    messages: tuple[ChatMessage, ...]
    tools: str = ""
    is_open: bool = False


@dataclass(frozen=True)
class Query:
    """How likely are `token_ids` right after `prompt`? `spans` are `[start, end)` in `token_ids`."""

    prompt: Prompt
    token_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Sampled:
    """A continuation that an engine sampled at temperature 1."""

    token_ids: tuple[int, ...]
    text: str


class Likelihoods(Protocol):
    """What an engine's scoring port answers. Each raises `UnavailableError` when no engine answers in time."""

    async def render(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        """Token ids of each prompt."""

    async def score(self, queries: Sequence[Query]) -> list[tuple[float, ...]]:
        """Per query, the summed log-probability of each of its spans, in nats. All under one version."""

    async def sample(self, prompts: Sequence[Prompt], num: int, max_tokens: int) -> list[tuple[Sampled, ...]]:
        """`num` continuations of each prompt, each at most `max_tokens` long. Only where an engine is idle."""
