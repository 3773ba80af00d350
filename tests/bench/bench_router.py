"""What the front door costs: chat completions straight to an upstream, and through a router process to the same one.

Both sides in one run, request by request in turn, one client, real sockets, the router in a process of its own. The
upstream answers at once, so everything measured is overhead. Prints a table and one JSON line.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bench
from ports import free_port
from rich.progress import track
from upstreams import Upstream

ROUNDS = 600
WARM_UP = 50
TARGETS = {"added_ms_p50": ("<=", 5.0)}


def configuration(folder: Path, upstream: Upstream) -> tuple[Path, int]:
    port = free_port()
    hosts = {"stable": "127.0.0.1", "candidate": "localhost"}
    slots = [{"id": a, "arm": a, "host": h, "port": upstream.port, "control_port": 1} for a, h in hosts.items()]
    given = {
        "run_dir": str(folder),
        "model": {"path": str(folder)},
        "log": {"brokers": f"127.0.0.1:{free_port()}"},
        "serving": {
            "engines": slots,
            "router": {"port": port},
            "rollout": {"port": free_port()},
        },
    }
    path = folder / "onstream.yaml"
    path.write_text(yaml.safe_dump(given))
    return path, port


async def ask(client: httpx.AsyncClient, port: int) -> float:
    begun = time.perf_counter()
    answer = await client.post(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": "hi"}]},
        headers={"x-request-id": "bench"},
    )
    assert answer.status_code == 200, answer.text
    return (time.perf_counter() - begun) * 1000


@asynccontextmanager
async def routed(folder: Path, upstream: Upstream, client: httpx.AsyncClient) -> AsyncIterator[tuple[int, int]]:
    """A router in a process of its own before `upstream`, once it answers: its port and its process's id."""
    path, port = configuration(folder, upstream)
    router = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        [sys.executable, "-m", "serving", "router", "--config", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                await ask(client, port)
                break
            except (httpx.HTTPError, AssertionError):
                await asyncio.sleep(0.2)
        yield port, router.pid
    finally:
        router.terminate()
        router.wait()


async def measure(folder: Path) -> dict[str, float]:
    upstream = Upstream()
    async with (
        upstream.serving(),
        httpx.AsyncClient(timeout=30.0) as client,
        routed(folder, upstream, client) as (port, _),
    ):
        direct, routed_ms = [], []
        for n in track(range(ROUNDS + WARM_UP), "asking"):
            pair = await ask(client, upstream.port), await ask(client, port)
            if n >= WARM_UP:
                direct.append(pair[0])
                routed_ms.append(pair[1])
    added = [b - a for a, b in zip(direct, routed_ms, strict=True)]
    return {
        "direct_ms_p50": statistics.median(direct),
        "routed_ms_p50": statistics.median(routed_ms),
        "added_ms_p50": statistics.median(added),
        "added_ms_p95": statistics.quantiles(added, n=20)[-1],
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = {name: round(value, 3) for name, value in asyncio.run(measure(Path(folder))).items()}
    bench.report("router", figures, TARGETS)


if __name__ == "__main__":
    main()
