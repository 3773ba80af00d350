"""Likelihoods asked once: what benchmarks ask again and again of the same weights."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingest.records.questions import Prompt, Query, Sampled, Scores
from rewards.summary.likelihood import Likelihoods


@dataclass
class Remembering:
    """Answers a question that was asked before from memory, and counts what the engine computed."""

    asked: Likelihoods
    known: dict[str, tuple[float, ...]] = field(default_factory=dict)
    num_tokens: int = 0
    seconds: float = 0.0

    async def render(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        return await self.asked.render(prompts)

    async def score(self, queries: Sequence[Query]) -> Scores:
        names = [query.model_dump_json() for query in queries]
        new = {name: query for name, query in zip(names, queries, strict=True) if name not in self.known}
        begun = time.monotonic()
        found = await self.asked.score(list(new.values()))
        self.seconds += time.monotonic() - begun
        self.num_tokens += found.num_tokens
        self.known |= dict(zip(new, found.logps, strict=True))
        return Scores(version=found.version, logps=tuple(self.known[n] for n in names), num_tokens=found.num_tokens)

    async def sample(self, prompts: Sequence[Prompt], num: int, max_tokens: int) -> list[tuple[Sampled, ...]]:
        begun = time.monotonic()
        found = await self.asked.sample(prompts, num, max_tokens)
        self.seconds += time.monotonic() - begun
        self.num_tokens += sum(len(one.token_ids) for drawn in found for one in drawn)
        return found
