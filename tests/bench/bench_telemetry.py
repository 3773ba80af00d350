"""What telemetry costs: throughput with traces, metrics and logs all going out by OTLP, against telemetry off.

At the router, two router processes before one upstream that answers at once, so that the router is what is measured.
At the engine, one engine whose telemetry (ours and vLLM's own) is switched on and off between blocks. Blocks of both
sides alternate in pairs, the order within a pair drawn. Users and the collector are processes of their own; what is
measured has a core for itself. The intervals are those of a bootstrap over pairs.

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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bench
from ports import free_port, free_ports
from rich.progress import track

TARGETS = {"router_throughput_ratio": (">=", 0.97), "engine_throughput_ratio": (">=", 0.99)}
ROUTER_PAIRS, ROUTER_BLOCK_S, ROUTER_USERS = 20, 3.0, 16
ENGINE_PAIRS, ENGINE_REQUESTS, ENGINE_USERS, REPLY_TOKENS = 12, 32, 8, 48
SUPPORT = Path(__file__).parents[1] / "support"
ON, OFF = True, False
Block = Callable[[bool], Awaitable[float]]


# -- children


@contextmanager
def child(*argv: str, env: dict[str, str] | None = None, cpu: int | None = None) -> Any:
    """A process for the length of a block, on a core of its own where there are several."""
    process = subprocess.Popen(argv, env=os.environ | (env or {}), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    cores = sorted(os.sched_getaffinity(0))
    if cpu is not None and len(cores) > 1:
        os.sched_setaffinity(process.pid, {cores[cpu]})
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def asked(process: subprocess.Popen[bytes], **what: Any) -> dict[str, Any]:
    """Give a child of this file a line, and wait for its answer."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(what).encode() + b"\n")
    process.stdin.flush()
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def exporting(port: int) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}


# -- users: a line of standard input is what to ask for, a line of standard output how many answers in how long


async def users() -> None:
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await ask(session, **json.loads(line))), flush=True)


async def ask(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], num_users: int, seconds: float, num_requests: int
) -> dict[str, float]:
    """`num_requests` answers, or as many as come in `seconds`, by so many users at a time."""
    begun, given, done = time.perf_counter(), 0, 0

    async def user() -> None:
        nonlocal given, done
        while given < num_requests if num_requests else time.perf_counter() - begun < seconds:
            given += 1
            async with session.post(url, json=body) as answer:
                await answer.read()
                assert answer.status == 200, answer.status
            done += 1

    await asyncio.gather(*(user() for _ in range(num_users)))
    return {"num": done, "seconds": time.perf_counter() - begun}


async def upstream(port: int) -> None:
    """An engine that answers at once, and costs next to nothing."""
    content = b'{"id":"chatcmpl-x","choices":[{"message":{"role":"assistant","content":"hello"}}]}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while told := await reader.readuntil(b"\r\n\r\n"):
            lines = told.lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            await reader.readexactly(length)
            writer.write(head + content)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


# -- the router


async def router(pairs: int) -> dict[str, float]:
    collector, engine, *ports = free_ports(4)
    with (
        tempfile.TemporaryDirectory() as folder,
        child(sys.executable, str(SUPPORT / "otlp.py"), str(collector), cpu=-1),
        child(sys.executable, __file__, "upstream", str(engine), cpu=-1),
        child(sys.executable, __file__, "users", cpu=-1) as talking,
        child(*routing(Path(folder), engine, ports[0]), env=exporting(collector), cpu=0) as on,
        child(*routing(Path(folder), engine, ports[1]), env={"OTEL_SDK_DISABLED": "true"}, cpu=0) as off,
    ):
        sides = {ON: (ports[0], psutil.Process(on.pid)), OFF: (ports[1], psutil.Process(off.pid))}
        used = {ON: [0.0, 0.0], OFF: [0.0, 0.0]}
        for port, _ in sides.values():
            await answers(f"http://127.0.0.1:{port}/health")

        async def block(is_on: bool) -> float:
            port, process = sides[is_on]
            before = sum(process.cpu_times()[:2])
            seen = asked(
                talking, url=f"http://127.0.0.1:{port}/v1/chat/completions", num_users=ROUTER_USERS, num_requests=0,
                seconds=ROUTER_BLOCK_S, body={"model": "m", "messages": [{"role": "user", "content": "hi"}]},
            )  # fmt: skip
            used[is_on][0] += sum(process.cpu_times()[:2]) - before
            used[is_on][1] += seen["num"]
            return float(seen["num"] / seen["seconds"])

        found = await compared("router", block, pairs)
    cost = {side: cpu_s / num * 1000 for side, (cpu_s, num) in used.items()}
    return found | {"router_cpu_ms_on": cost[ON], "router_cpu_ms_off": cost[OFF]}


def routing(folder: Path, engine: int, port: int) -> tuple[str, ...]:
    path = folder / f"{port}.yaml"
    slots = [
        {"id": arm, "arm": arm, "host": host, "port": engine, "control_port": 1}
        for arm, host in (("stable", "127.0.0.1"), ("candidate", "localhost"))
    ]
    given = {
        "run_dir": str(folder / str(port)), "model": {"path": str(folder)},
        "log": {"brokers": f"127.0.0.1:{free_port()}"},
        "serving": {"engines": slots, "router": {"port": port}, "rollout": {"port": free_port()}},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(given))
    return sys.executable, "-m", "serving", "router", "--config", str(path)


async def answers(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(300):
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


# -- the engine


@asynccontextmanager
async def engine_running(collector: int) -> AsyncIterator[tuple[Any, Callable[[bool], None]]]:
    """An engine, and what switches telemetry on and off in it."""
    os.environ |= exporting(collector)
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


async def engine(pairs: int) -> dict[str, float]:
    collector = free_port()
    with (
        child(sys.executable, str(SUPPORT / "otlp.py"), str(collector), cpu=-1),
        child(sys.executable, __file__, "users", cpu=-1) as talking,
    ):
        async with engine_running(collector) as (running, switch):

            async def block(is_on: bool) -> float:
                switch(is_on)
                words = f"Tell me about the number {random.random()}."
                body = {
                    "model": running.model, "messages": [{"role": "user", "content": words}], "stream": True,
                    "max_tokens": REPLY_TOKENS, "ignore_eos": True,
                }  # fmt: skip
                seen = await asyncio.to_thread(
                    asked, talking, url=f"{running.url}/v1/chat/completions", num_users=ENGINE_USERS, seconds=0,
                    num_requests=ENGINE_REQUESTS, body=body,
                )  # fmt: skip
                return float(seen["num"] * REPLY_TOKENS / seen["seconds"])

            return await compared("engine", block, pairs)


# -- the run


async def compared(name: str, block: Block, pairs: int) -> dict[str, float]:
    """Throughput of both sides, and the ratio of their sums over all pairs, with its interval."""
    for is_on in (ON, OFF):
        await block(is_on)  # warm
    seen: list[tuple[float, float]] = []
    for _ in track(range(pairs), f"{name}, pairs of blocks"):
        order = random.sample([ON, OFF], 2)
        rate = {is_on: await block(is_on) for is_on in order}
        seen.append((rate[ON], rate[OFF]))
    on, off = (np.array([pair[side] for pair in seen]) for side in (0, 1))
    drawn = np.random.default_rng(0).integers(0, pairs, (2000, pairs))
    low, high = np.percentile(on[drawn].sum(axis=1) / off[drawn].sum(axis=1), [2.5, 97.5])
    return {
        f"{name}_throughput_ratio": float(on.sum() / off.sum()),
        f"{name}_throughput_ratio_low": float(low),
        f"{name}_throughput_ratio_high": float(high),
        f"{name}_per_s_on": float(on.mean()),
        f"{name}_per_s_off": float(off.mean()),
    }


def main() -> None:
    match sys.argv[1:]:
        case ["users"]:
            asyncio.run(users())
            return
        case ["upstream", port]:
            asyncio.run(upstream(int(port)))
            return
    parser = argparse.ArgumentParser()
    for flag in ("quick", "router", "engine"):
        parser.add_argument(f"--{flag}", action="store_true")
    args = parser.parse_args()
    is_whole = args.router == args.engine
    figures: dict[str, float] = {}
    if is_whole or args.router:
        figures |= asyncio.run(router(2 if args.quick else ROUTER_PAIRS))
    if is_whole or args.engine:
        figures |= asyncio.run(engine(2 if args.quick else ENGINE_PAIRS))
    targets = {name: target for name, target in TARGETS.items() if name in figures}
    bench.report("telemetry", {name: round(value, 4) for name, value in figures.items()}, targets)


if __name__ == "__main__":
    main()
