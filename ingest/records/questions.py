"""What a scorer may ask an engine over HTTP, and what it answers: the vocabulary that both sides share.

An engine with a `scoring_port` takes three POST requests there, each with `Authorization: Bearer` and the scoring
credential, and serves them behind its users:

    /render   RenderRequest -> Rendered    the token ids that its chat template makes of messages
    /score    ScoreRequest  -> Scores      log-probabilities of given tokens after given messages
    /sample   SampleRequest -> Samples     continuations of given messages

400 names what is wrong with a request, 401 wants the credential, 503 says why it could not be served in time: the
engine was busy with users, or swapped weights. Nothing asked here is captured: a scorer's questions are not what users
said. Costs pydantic only.
"""

from typing import Annotated

from pydantic import Field, model_validator

from ingest.records.events import ChatMessage, Frozen

RENDER, SCORE, SAMPLE = "/render", "/score", "/sample"

Token = Annotated[int, Field(ge=0)]


class Prompt(Frozen):
    """Messages as a chat template renders them; `tools` is the JSON text of the tools offered, or empty.

    `is_open` ends it with the template's generation prompt, as before a reply.
    """

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    tools: str = ""
    is_open: bool = False


class Query(Frozen):
    """How likely are `token_ids` right after `prompt`? `spans` are `[start, end)` in `token_ids`."""

    prompt: Prompt
    token_ids: tuple[Token, ...] = Field(min_length=1)
    spans: tuple[tuple[int, int], ...]

    @model_validator(mode="after")
    def _inside(self) -> "Query":
        for start, end in self.spans:
            if not 0 <= start < end <= len(self.token_ids):
                raise ValueError(f"a span must lie in [0, {len(self.token_ids)}), got [{start}, {end})")
        return self


class Sampled(Frozen):
    """A continuation that an engine sampled at temperature 1."""

    token_ids: tuple[Token, ...]
    text: str


class RenderRequest(Frozen):
    prompts: tuple[Prompt, ...]


class Rendered(Frozen):
    """Token ids of each prompt."""

    token_ids: tuple[tuple[Token, ...], ...]


class ScoreRequest(Frozen):
    queries: tuple[Query, ...]


class Scores(Frozen):
    """Per query, the summed log-probability of each of its spans, in nats, all under the weights of `version`.

    `num_tokens` is what the engine computed for it: prompts and continuations, less what it had in its prefix cache.
    """

    version: int
    logps: tuple[tuple[float, ...], ...]
    num_tokens: int


class SampleRequest(Frozen):
    """`num` continuations of each prompt, each at most `max_tokens` long."""

    prompts: tuple[Prompt, ...]
    num: int = Field(ge=1, le=16)
    max_tokens: int = Field(ge=1)


class Samples(Frozen):
    """Per prompt, its continuations."""

    version: int
    samples: tuple[tuple[Sampled, ...], ...]
