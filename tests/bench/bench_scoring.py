"""What scoring costs users: their times between tokens with scorers asking all the time, against none asking.

One engine, one run. Blocks of scoring on and off in pairs, the order within a pair drawn; both sides of a pair have
users who arrive and pause at the same moments. Two users come in bursts: each streams a reply, reads it for some
seconds, and comes again, so scorers find idle moments and users find an engine that was at work. Users, scorer and
engine are processes of their own, as they are in production; the engine computes on one core, as in the demo.

Targets are the issue's: users' median and 95th percentile of time between tokens within 5 %. A first token may wait for
the end of the piece in work when its user arrived (`serving.engine.scoring.PIECE_S`); that is shown, beside the rate of
scoring, and has no target. The intervals are those of a bootstrap over pairs.
"""

import asyncio
import json
import random
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bench
from rich.progress import track

from ingest.records.events import ChatMessage
from ingest.records.questions import Prompt, Query
from rewards.summary.engines import EngineLikelihoods
from rewards.summary.likelihood import UnavailableError

PAIRS, BLOCK_S = 8, 18.0
NUM_USERS, REPLY_TOKENS, PAUSE_S = 2, 32, (1.0, 4.0)
SCORERS, HISTORY_WORDS, SUMMARY_WORDS, REPLY_WORDS = 2, (200, 500), 60, (20, 60)
TARGETS = {"between_tokens_p50_ratio": ("<=", 1.05), "between_tokens_p95_ratio": ("<=", 1.05)}
TEXT = (
    "the user asked for a test of the parser and it fails on port 8080 since config main reads session token limits "
    "from an old file while notes of version two say that cache and tree must hold their order until release day"
)


def said(rng: random.Random, num: int) -> str:
    return " ".join(rng.choices(TEXT.split(), k=num))


# -- users: a line of standard input begins a block, a line of standard output is what they saw


async def users(url: str, model: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=120.0) as client:
        for line in sys.stdin:
            asked = json.loads(line)
            end = time.monotonic() + asked["seconds"]
            seen = await asyncio.gather(*(user(client, model, asked["seed"], n, end) for n in range(NUM_USERS)))
            told = {kind: [value for one in seen for value in one[kind]] for kind in ("between", "first")}
            print(json.dumps(told), flush=True)


async def user(client: httpx.AsyncClient, model: str, seed: int, number: int, end: float) -> dict[str, list[float]]:
    """Both sides of a pair have the same pauses and other words, so that neither finds the other's in the cache."""
    pauses, words = random.Random(f"{seed} {number}"), random.Random()
    seen: dict[str, list[float]] = {"between": [], "first": []}
    while True:
        await asyncio.sleep(pauses.uniform(*PAUSE_S))
        if time.monotonic() >= end:
            return seen
        begun = time.monotonic()
        times = [at async for at in reply(client, model, said(words, 40))]
        seen["first"].append(times[0] - begun)
        seen["between"] += [after - before for before, after in pairwise(times)]


async def reply(client: httpx.AsyncClient, model: str, text: str) -> Any:
    """The time of each token."""
    body = {
        "model": model, "messages": [{"role": "user", "content": text}], "stream": True,
        "max_tokens": REPLY_TOKENS, "ignore_eos": True,
    }  # fmt: skip
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and any("content" in c["delta"] for c in json.loads(line[6:])["choices"]):
                yield time.monotonic()


# -- scorers: `on` and `off` by line; after `off`, once nothing of theirs is left in the engine, what they got


async def scorers(url: str, token: str) -> None:
    likelihoods = EngineLikelihoods([url], token)
    rng, loop = random.Random(0), asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        over = asyncio.Event()
        working = [asyncio.create_task(scorer(likelihoods, rng, over)) for _ in range(SCORERS)]
        await loop.run_in_executor(None, sys.stdin.readline)
        over.set()
        print(json.dumps({"num_tokens": sum(await asyncio.gather(*working))}), flush=True)


async def scorer(likelihoods: EngineLikelihoods, rng: random.Random, over: asyncio.Event) -> int:
    """A summary's questions after those of another, without a pause; the tokens computed for them."""
    num_tokens = 0
    while not over.is_set():
        try:
            num_tokens += (await likelihoods.score(await questions(likelihoods, rng))).num_tokens
        except UnavailableError:
            continue
    return num_tokens


async def questions(likelihoods: EngineLikelihoods, rng: random.Random) -> list[Query]:
    """Two continuations, each after the whole history, after a summary of it, and after neither."""
    told = [said(rng, rng.randint(*HISTORY_WORDS)), said(rng, SUMMARY_WORDS), "Go on."]
    prompts = [Prompt(messages=(ChatMessage(role="user", text=text),), is_open=True) for text in told]
    texts = [said(rng, rng.randint(*REPLY_WORDS)) for _ in range(2)]
    whole = [
        Prompt(messages=(ChatMessage(role="user", text="x"), ChatMessage(role="assistant", text=t))) for t in texts
    ]
    begin, *replies = await likelihoods.render([Prompt(messages=whole[0].messages[:1], is_open=True), *whole])
    continuations = [tokens[len(begin) :] for tokens in replies]
    return [
        Query(prompt=prompt, token_ids=tokens, spans=((0, len(tokens)),))
        for prompt in prompts
        for tokens in continuations
    ]


# -- the run


class Child:
    """A process of this file that is spoken to by lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, *argv: str) -> "Child":
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, __file__, *argv)
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 24))

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return found

    async def end(self) -> None:
        self._process.terminate()
        await self._process.wait()


Block = dict[str, Any]


async def measure() -> dict[str, float]:
    from engine import scoring_engine

    async with scoring_engine(cpus="0") as running:
        talking = await Child.start("users", running.url, running.model)
        asking = await Child.start("scorers", running.scoring_url, running.token)
        try:
            await block(talking, asking, 0, 10.0, is_on=True)  # warm: the pace of pieces, and vLLM itself
            pairs = []
            for seed in track(range(1, PAIRS + 1), "pairs of blocks"):
                sides = [True, False]
                random.shuffle(sides)
                seen = {is_on: await block(talking, asking, seed, BLOCK_S, is_on) for is_on in sides}
                pairs.append((seen[True], seen[False]))
        finally:
            await talking.end()
            await asking.end()
    return figures(pairs)


async def block(talking: Child, asking: Child, seed: int, seconds: float, is_on: bool) -> Block:
    if is_on:
        asking.say("on")
    begun = time.monotonic()
    talking.say(json.dumps({"seed": seed, "seconds": seconds}))
    seen = await talking.hear()
    seen["seconds"] = time.monotonic() - begun
    if is_on:
        asking.say("off")
        seen |= await asking.hear()
        seen["scoring_s"] = time.monotonic() - begun
    return seen


def figures(pairs: list[tuple[Block, Block]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for percent in (50, 95):
        name = f"between_tokens_p{percent}"
        on, off = (percentile([pair[side] for pair in pairs], "between", percent) for side in (0, 1))
        low, high = bootstrap(pairs, percent)
        found |= {f"{name}_ratio": on / off, f"{name}_ratio_low": low, f"{name}_ratio_high": high}
        found |= {f"{name}_on_ms": on * 1000, f"{name}_off_ms": off * 1000}
    for percent in (50, 95):
        for side, label in enumerate(("on", "off")):
            seconds = percentile([pair[side] for pair in pairs], "first", percent)
            found[f"first_token_p{percent}_{label}_ms"] = seconds * 1000
    ons = [on for on, _ in pairs]
    found["scored_tokens_per_s"] = sum(on["num_tokens"] for on in ons) / sum(on["scoring_s"] for on in ons)
    found["times_between_tokens_on"] = sum(len(on["between"]) for on in ons)
    found["times_between_tokens_off"] = sum(len(off["between"]) for _, off in pairs)
    return {name: round(value, 4) for name, value in found.items()}


def percentile(blocks: list[Block], kind: str, percent: int) -> float:
    return float(np.percentile([value for block in blocks for value in block[kind]], percent))


def bootstrap(pairs: list[tuple[Block, Block]], percent: int, rounds: int = 1000) -> tuple[float, float]:
    """The middle 95 % of the ratio over draws of as many pairs."""
    rng = random.Random(0)
    ratios = []
    for _ in range(rounds):
        drawn = rng.choices(pairs, k=len(pairs))
        on, off = (percentile([pair[side] for pair in drawn], "between", percent) for side in (0, 1))
        ratios.append(on / off)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    match sys.argv[1:]:
        case ["users", url, model]:
            asyncio.run(users(url, model))
        case ["scorers", url, token]:
            asyncio.run(scorers(url, token))
        case _:
            bench.report("scoring", asyncio.run(measure()), TARGETS)


if __name__ == "__main__":
    main()
