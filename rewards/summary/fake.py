"""A `Likelihoods` without an engine, for tests of scorers: words are tokens, and what was said before is likely.

Keeps what a scorer may rely on of the real one (the conformance tests run against both), and nothing of its speed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingest.records.events import ChatMessage
from ingest.records.questions import Prompt, Query, Sampled, Scores
from rewards.summary.likelihood import UnavailableError


@dataclass
class CopyingLikelihoods:
    """A token costs `known` nats where it stands in the prompt or earlier in the continuation, else `new` nats.

    A rendered conversation begins with what its beginning renders to, also where that ends open before a reply.
    `is_available` set to false makes every question raise `UnavailableError`. `num_queries` counts those answered.
    """

    known: float = 0.1
    new: float = 5.0
    version: int = 0
    is_available: bool = True
    num_queries: int = field(default=0, init=False)

    async def render(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        self._require_available()
        return [tuple(map(token_of, _words(prompt))) for prompt in prompts]

    async def score(self, queries: Sequence[Query]) -> Scores:
        rendered = await self.render([query.prompt for query in queries])
        self.num_queries += len(queries)
        costs = [self._costs(prompt, query.token_ids) for prompt, query in zip(rendered, queries, strict=True)]
        return Scores(
            version=self.version,
            logps=tuple(
                tuple(-sum(cost[start:end]) for start, end in query.spans)
                for cost, query in zip(costs, queries, strict=True)
            ),
            num_tokens=sum(map(len, rendered)) + sum(map(len, costs)),
        )

    async def sample(self, prompts: Sequence[Prompt], num: int, max_tokens: int) -> list[tuple[Sampled, ...]]:
        """Copies of the prompt's last message, each begun one word later, and from its beginning again at its end."""
        self._require_available()
        return [tuple(_rotated(prompt.messages[-1].text, n, max_tokens) for n in range(num)) for prompt in prompts]

    def _costs(self, prompt: tuple[int, ...], continuation: tuple[int, ...]) -> list[float]:
        seen, costs = set(prompt), []
        for token in continuation:
            costs.append(self.known if token in seen else self.new)
            seen.add(token)
        return costs

    def _require_available(self) -> None:
        if not self.is_available:
            raise UnavailableError("the engines of this fake were made unavailable")


def token_of(word: str) -> int:
    """A word's token id: the same in every process, below 2**31."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest()) >> 1


def _words(prompt: Prompt) -> list[str]:
    words = prompt.tools.split()
    for message in prompt.messages:
        words += [_role(message.role), *_said(message)]
    return [*words, _role("assistant")] if prompt.is_open else words


def _said(message: ChatMessage) -> list[str]:
    calls = [word for call in message.tool_calls for word in (call.name, *call.arguments.split())]
    return message.text.split() + calls


def _role(name: str) -> str:
    return f"<{name}>"


def _rotated(text: str, by: int, max_tokens: int) -> Sampled:
    words = text.split()
    at = by % len(words) if words else 0
    chosen = (words[at:] + words[:at])[:max_tokens]
    return Sampled(token_ids=tuple(map(token_of, chosen)), text=" ".join(chosen))
