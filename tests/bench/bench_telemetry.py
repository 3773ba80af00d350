"""What telemetry costs: throughput with traces, metrics and logs all going out by OTLP, against telemetry off.

On is what a user gets who sets `OTEL_EXPORTER_OTLP_ENDPOINT` and nothing else: every trace is kept.

At the router, router processes before one upstream that answers at once, asked as `bench_router` asks: one request
after another, by a client such as users have. One has telemetry on and two have it off: of these the second is the
control, whose ratio to the first says what two processes with the same settings differ by. That is up to 2 %, and goes
by the order in which they were begun: all are begun anew eight times, in one order and in the other. Beside that,
without a target, the same with routers that are saturated on a core of their own, and what a request costs them there,
where what is told later is told on that core too. There a fourth keeps one trace in ten (`OTEL_TRACES_SAMPLER`).

At the engine, one engine whose telemetry (ours and vLLM's own) is switched on and off between blocks; spans are sent
twice a second there, not every five, so that a block pays for its own.

Blocks of all sides alternate in rounds, their order within a round drawn. A ratio is the median over rounds of a block
to the one beside it, and of several fleets the mean: what else the machine does meets single blocks, and would decide
a ratio of sums. Those stand beside it (`whole`). Users, upstream and collector are processes of their own. Intervals
are a bootstrap's, over fleets and over the rounds of each.

    python tests/bench/bench_telemetry.py [--quick] [--router] [--engine]
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bench
from ports import free_port, free_ports
from rich.progress import track


class Side(StrEnum):
    """How telemetry is set."""

    ON = "on"
    TENTH = "tenth"
    OFF = "off"
    CONTROL = "control"


TARGETS = {"router_ratio_on": (">=", 0.97), "engine_ratio_on": (">=", 0.99)}
ROUTER_FLEETS, ROUTER_ROUNDS, ROUTER_BLOCK_S = 8, 15, 1.0
SATURATED_ROUNDS, SATURATED_BLOCK_S, SATURATED_USERS = 2, 2.0, 16
ENGINE_ROUNDS, ENGINE_REQUESTS, ENGINE_USERS, REPLY_TOKENS = 96, 8, 8, 48
SUPPORT = Path(__file__).parents[1] / "support"
MESSAGES = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
Block = Callable[[Side], Awaitable[float]]


# -- children


@contextmanager
def child(*argv: str, env: dict[str, str] | None = None, core: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the length of a block, on one core where there are several."""
    process = subprocess.Popen(argv, env=os.environ | (env or {}), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    cores = sorted(os.sched_getaffinity(0))
    if core is not None and len(cores) > 1:
        os.sched_setaffinity(process.pid, {cores[core]})
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def mine(*argv: str, core: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this file."""
    with child(sys.executable, __file__, *argv, core=core) as process:
        yield process


def told(process: subprocess.Popen[bytes], **what: Any) -> float:
    """Give a process of this file a line, and wait for the number that it answers with."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(what).encode() + b"\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def settings(side: Side, collector: int) -> dict[str, str]:
    if side in (Side.OFF, Side.CONTROL):
        return {"OTEL_SDK_DISABLED": "true"}
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}"}
    if side is Side.TENTH:
        asked |= {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
    return asked


# -- users: a line of standard input is what to ask, a line of standard output how many answers came in a second


async def lines() -> AsyncIterator[dict[str, Any]]:
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield json.loads(line)


async def one_user() -> None:
    """One request after another, for some seconds."""
    async with httpx.AsyncClient(timeout=30.0) as client:
        async for asked in lines():
            begun, num = time.perf_counter(), 0
            while time.perf_counter() - begun < asked["seconds"]:
                answer = await client.post(asked["url"], json=asked["body"])
                assert answer.status_code == 200, answer.text
                num += 1
            print(num / (time.perf_counter() - begun), flush=True)


async def many_users() -> None:
    """`users` at a time, for some seconds or until `requests` are answered."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async for asked in lines():
            begun, given = time.perf_counter(), iter(range(asked.get("requests") or 1 << 30))
            until = begun + asked.get("seconds", 1e9)
            nums = await asyncio.gather(*(user(session, asked, given, until) for _ in range(asked["users"])))
            print(sum(nums) / (time.perf_counter() - begun), flush=True)


async def user(session: aiohttp.ClientSession, asked: dict[str, Any], given: Iterator[int], until: float) -> int:
    num = 0
    while time.perf_counter() < until and next(given, None) is not None:
        async with session.post(asked["url"], json=asked["body"]) as answer:
            await answer.read()
            assert answer.status == 200, answer.status
        num += 1
    return num


async def upstream(port: int) -> None:
    """An engine that answers at once, and costs next to nothing."""
    content = b'{"id":"chatcmpl-x","choices":[{"message":{"role":"assistant","content":"hello"}}]}'
    whole = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content) + content

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                heads = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
                length = next((int(line[15:]) for line in heads if line.startswith(b"content-length:")), 0)
                await reader.readexactly(length)
                writer.write(whole)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


# -- the router


async def router(fleets: int, rounds: int, saturated_rounds: int) -> dict[str, float]:
    """Of several fleets of routers, one after the other."""
    alone, saturated = Blocks((Side.ON, Side.OFF, Side.CONTROL)), Blocks(tuple(Side))
    used = {side: [0.0, 0.0] for side in Side}
    for number in track(range(fleets), "router"):
        order = list(Side) if number % 2 else list(reversed(Side))
        await one_fleet(order, alone, rounds, saturated, saturated_rounds, used)
    found = alone.compared("router") | saturated.compared("router_saturated")
    return found | {f"router_saturated_cpu_ms_{side}": cpu_s / num * 1000 for side, (cpu_s, num) in used.items()}


async def one_fleet(
    order: Sequence[Side],
    alone: "Blocks",
    rounds: int,
    saturated: "Blocks",
    saturated_rounds: int,
    used: dict[Side, list[float]],
) -> None:
    collector, engine, *ports = free_ports(2 + len(Side))
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        held.enter_context(child(sys.executable, str(SUPPORT / "otlp.py"), str(collector), core=-1))
        held.enter_context(mine("upstream", str(engine), core=-1))
        one, many = (held.enter_context(mine(name, core=-1)) for name in ("one_user", "many_users"))
        processes, urls = {}, {}
        for side, port in zip(order, ports, strict=True):
            routing = child(*routed(folder, engine, port), env=settings(side, collector), core=0)
            processes[side] = psutil.Process(held.enter_context(routing).pid)
            urls[side] = f"http://127.0.0.1:{port}/v1/chat/completions"
            await answers(f"http://127.0.0.1:{port}/health")

        async def ask_alone(side: Side) -> float:
            return told(one, url=urls[side], body=MESSAGES, seconds=ROUTER_BLOCK_S)

        async def saturate(side: Side) -> float:
            before, begun = sum(processes[side].cpu_times()[:2]), time.perf_counter()
            rate = told(many, url=urls[side], body=MESSAGES, users=SATURATED_USERS, seconds=SATURATED_BLOCK_S)
            used[side][0] += sum(processes[side].cpu_times()[:2]) - before
            used[side][1] += rate * (time.perf_counter() - begun)
            return rate

        await alone.run(ask_alone, range(rounds))
        await saturated.run(saturate, range(saturated_rounds))


def routed(folder: Path, engine: int, port: int) -> tuple[str, ...]:
    """The command of a router before the upstream."""
    path = folder / f"{port}.yaml"
    hosts = {"stable": "127.0.0.1", "candidate": "localhost"}
    slots = [{"id": a, "arm": a, "host": host, "port": engine, "control_port": 1} for a, host in hosts.items()]
    serving = {"engines": slots, "router": {"port": port}, "rollout": {"port": free_port()}}
    log = {"brokers": f"127.0.0.1:{free_port()}"}
    given = {"run_dir": str(folder / str(port)), "model": {"path": str(folder)}, "log": log, "serving": serving}
    path.write_text(yaml.safe_dump(given))
    return sys.executable, "-m", "serving", "router", "--config", str(path)


async def answers(url: str) -> None:
    for _ in range(300):
        try:
            if httpx.get(url).status_code == 200:  # noqa: ASYNC210 - nothing else runs yet
                return
        except httpx.HTTPError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


# -- the engine


async def engine(rounds: int) -> dict[str, float]:
    collector = free_port()
    with (
        child(sys.executable, str(SUPPORT / "otlp.py"), str(collector), core=-1),
        mine("many_users", core=-1) as many,
    ):
        async with engine_running(collector) as (running, switch):

            async def block(side: Side) -> float:
                switch(side is Side.ON)
                words = {"messages": [{"role": "user", "content": f"Tell me about the number {random.random()}."}]}
                body = {"model": running.model, "stream": True, "max_tokens": REPLY_TOKENS, "ignore_eos": True} | words
                ask = partial(told, many, url=f"{running.url}/v1/chat/completions", body=body, users=ENGINE_USERS)
                return REPLY_TOKENS * await asyncio.to_thread(ask, requests=ENGINE_REQUESTS)

            blocks = Blocks((Side.ON, Side.OFF))
            await blocks.run(block, track(range(rounds), "engine"))
            return blocks.compared("engine")


@asynccontextmanager
async def engine_running(collector: int) -> AsyncIterator[tuple[Any, Callable[[bool], None]]]:
    """An engine, and what switches telemetry on and off in it."""
    os.environ |= settings(Side.ON, collector) | {"OTEL_BSP_SCHEDULE_DELAY": "500"}
    from engine import scoring_engine

    from infra import telemetry
    from infra.telemetry import instruments, spans

    telemetry.setup("engine", "bench")
    held = spans._tracer, instruments._held
    async with scoring_engine(cpus="0") as running:

        def switch(is_on: bool) -> None:
            spans._tracer, instruments._held = held if is_on else (None, None)
            running.llm.output_processor.tracing_enabled = is_on

        yield running, switch


# -- the run


class Blocks:
    """What sides gave in rounds of a block each, of one fleet after the other."""

    def __init__(self, sides: Sequence[Side]) -> None:
        self._sides = tuple(sides)
        self._seen: list[dict[Side, list[float]]] = []

    async def run(self, block: Block, rounds: Iterable[int]) -> None:
        """A fleet's rounds, after a block of each side that does not count."""
        for side in self._sides:
            await block(side)
        seen: dict[Side, list[float]] = {side: [] for side in self._sides}
        for _ in rounds:
            for side in random.sample(self._sides, len(self._sides)):
                seen[side].append(await block(side))
        self._seen.append(seen)

    def compared(self, name: str) -> dict[str, float]:
        """Each side's throughput, and its ratio to that without telemetry, with an interval."""
        rates = {side: np.array([seen[side] for seen in self._seen]) for side in self._sides}
        found = {f"{name}_per_s_{side}": float(rates[side].mean()) for side in self._sides}
        for side in self._sides:
            if side is not Side.OFF:
                low, ratio, high = _typical(rates[side] / rates[Side.OFF])
                found |= {f"{name}_ratio_{side}": ratio, f"{name}_ratio_{side}_low": low}
                found |= {f"{name}_ratio_{side}_high": high}
                found |= {f"{name}_whole_{side}": float(rates[side].sum() / rates[Side.OFF].sum())}
        return found


def _typical(ratios: np.ndarray) -> tuple[float, float, float]:
    """The mean over fleets of their rounds' median, within its interval. `ratios`: [fleets, rounds]."""
    num_fleets, num_rounds = ratios.shape
    rng = np.random.default_rng(0)
    fleets = rng.integers(0, num_fleets, (2000, num_fleets))
    rounds = rng.integers(0, num_rounds, (2000, num_fleets, num_rounds))
    drawn = np.median(ratios[fleets[..., None], rounds], axis=2).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(np.median(ratios, axis=1).mean()), float(high)


def main() -> None:
    match sys.argv[1:]:
        case ["one_user"]:
            asyncio.run(one_user())
            return
        case ["many_users"]:
            asyncio.run(many_users())
            return
        case ["upstream", port]:
            asyncio.run(upstream(int(port)))
            return
    parser = argparse.ArgumentParser()
    for flag in ("quick", "router", "engine"):
        parser.add_argument(f"--{flag}", action="store_true")
    args = parser.parse_args()
    both, figures = args.router == args.engine, dict[str, float]()
    if both or args.router:
        figures |= asyncio.run(router(*((1, 3, 2) if args.quick else (ROUTER_FLEETS, ROUTER_ROUNDS, SATURATED_ROUNDS))))
    if both or args.engine:
        figures |= asyncio.run(engine(2 if args.quick else ENGINE_ROUNDS))
    targets = {name: target for name, target in TARGETS.items() if name in figures}
    bench.report("telemetry", {name: round(value, 4) for name, value in figures.items()}, targets)


if __name__ == "__main__":
    main()
