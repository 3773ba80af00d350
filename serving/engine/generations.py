"""What telemetry hears of an engine's requests: GenAI's attributes and metrics, of what capture saw."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from starlette.types import Scope

from infra import telemetry
from infra.telemetry import metrics, names
from ingest.records.events import Sampling, VersionSpan, session_key
from serving import requests
from serving.headers import Identity

_PROVIDER = "vllm"
_FAILED = 500


class Reply(Protocol):
    """A sampled sequence. `first_at` is when its first token came, where it was streamed."""

    prompt_token_ids: tuple[int, ...]
    sampling: Sampling
    token_ids: list[int]
    spans: tuple[VersionSpan, ...]
    finish_reason: str
    first_at: float | None


class Exchange(Protocol):
    """A request, with what was sampled for it by the time that it ended."""

    identity: Identity
    status: int

    def sampled(self) -> Sequence[Reply]: ...


class Generations:
    """Tells of the requests in one engine. `model` is its name in the configuration, not what a client calls it."""

    def __init__(self, engine_id: str, model: str) -> None:
        self._engine_id, self._model = engine_id, model

    @contextmanager
    def telling(self, scope: Scope, exchange: Exchange) -> Iterator[Scope]:
        """Around the request of `scope`; yields the scope that vLLM shall see, whose own spans come below this one."""
        above = requests.headers_of(scope)
        if not (telemetry.is_tracing() or telemetry.is_measuring() or above):
            yield scope
            return
        begun, asked = time.monotonic(), requests.operation(scope["path"])
        about: names.Told = {names.OPERATION: asked, names.PROVIDER: _PROVIDER, names.REQUEST_MODEL: self._model}
        about[names.ARM] = exchange.identity.assignment.arm.value
        told = about | {
            names.TRACE: exchange.identity.trace_id,
            names.CONVERSATION: session_key(exchange.identity.session_id),
            names.ENGINE: self._engine_id,
        }
        with telemetry.span(names.GENERATE, told, above, of=f"{asked} {self._model}".strip()) as span:
            try:
                yield requests.within(scope)
            finally:
                if span.is_recording():
                    span.set_attributes(_sampled(exchange.sampled()))
                if exchange.status >= _FAILED:
                    telemetry.failed(span, str(exchange.status))
                _measure(about, begun, exchange.sampled())


def _sampled(replies: Sequence[Reply]) -> names.Told:
    """What is known of the replies of one request."""
    if not replies:
        return {}
    first = replies[0]
    told: names.Told = {
        names.STREAM: first.first_at is not None,
        names.TEMPERATURE: first.sampling.temperature,
        names.TOP_P: first.sampling.top_p,
        names.FINISH_REASONS: tuple(reply.finish_reason for reply in replies),
        names.INPUT_TOKENS: len(first.prompt_token_ids),
        names.OUTPUT_TOKENS: sum(len(reply.token_ids) for reply in replies),
    }
    if first.sampling.max_tokens is not None:
        told[names.MAX_TOKENS] = first.sampling.max_tokens
    if first.spans:
        told[names.VERSION] = first.spans[-1].version
    return told


def _measure(about: names.Told, begun: float, replies: Sequence[Reply]) -> None:
    now = time.monotonic()
    telemetry.record(metrics.GENERATE_DURATION, now - begun, about)
    for reply in replies:
        if reply.first_at is not None:
            telemetry.record(metrics.FIRST_TOKEN, reply.first_at - begun, about)
            if len(reply.token_ids) > 1:
                telemetry.record(metrics.EACH_TOKEN, (now - reply.first_at) / (len(reply.token_ids) - 1), about)
