"""What the front door, the controller's questions, users' keys and the log's lag cost: processor time of who asks."""

import asyncio
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import httpx
import psutil
from bench_router import ask, routed
from growth import Figures, cpu_s
from intakes import intake
from ports import free_port
from rate import configured, running_broker
from upstreams import Upstream

from infra.config import Config, EngineSlot, RouterConfig
from ingest.log import topics
from ingest.log.kafka_log import KafkaLog
from ingest.log.protocol import TopicSpec
from ingest.privacy.keys import KeyStore
from ingest.records.events import TrialState
from ingest.store.releases import Served
from serving.rollout.engines import EngineControl
from serving.router.front import Router
from serving.router.routing import Health, assign, order
from serving.spool import Spool

REQUESTS, IDLE_S, ASKED = 1_500, 4.0, 300
SUBJECTS = 500
ENGINES = (2, 100, 1_000)
PARTITIONS = (4, 64)
MESSAGES, MESSAGE_BYTES = 10_000, 1_000


# -- requests through a router process


def requests() -> Figures:
    with TemporaryDirectory() as folder:
        return asyncio.run(_requests(Path(folder)))


async def _requests(folder: Path) -> Figures:
    """The router's time for a request: beside what it spends with none, on probes of its two engines."""
    upstream = Upstream()
    async with (
        upstream.serving(),
        httpx.AsyncClient(timeout=30.0) as client,
        routed(folder, upstream, client) as (port, pid),
    ):
        for _ in range(100):
            await ask(client, port)
        process, begun = psutil.Process(pid), time.perf_counter()
        before = _spent(process)
        await asyncio.sleep(IDLE_S)
        idle = (_spent(process) - before) / (time.perf_counter() - begun)
        before, begun = _spent(process), time.perf_counter()
        for _ in range(REQUESTS):
            await ask(client, port)
        spent = _spent(process) - before - idle * (time.perf_counter() - begun)
    return {"router_request_us": spent / REQUESTS * 1e6, "router_idle_share": idle}


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def routing() -> Figures:
    """Of that, what grows with engines: the arm and the order in which they are tried, during a trial."""
    found = Figures()
    for num in ENGINES:
        names = tuple(f"onstream-engine-{n}" for n in range(num))
        versions = MappingProxyType({name: int(n < max(1, num // 10)) for n, name in enumerate(names)})
        served = Served(
            epoch=0,
            last=9,
            candidate=1,
            state=TrialState.CANARY,
            share=0.1,
            salt="salt",
            engines=versions,
            lineage=(0,),
        )
        health = Health()

        def route(
            session: str, served: Served = served, names: tuple[str, ...] = names, health: Health = health
        ) -> None:
            order(session, assign(session, served, names, health), served, names, health)

        times = 20_000 // num
        found[f"routing_us_{num}"] = (
            1e6 / times * cpu_s(lambda route=route, times=times: [route(str(n)) for n in range(times)])
        )
    return found


# -- questions to engines


@contextmanager
def answering() -> Iterator[int]:
    """A port where a process of its own answers every GET as an engine's control port does."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("answering.py")), str(port)], stderr=subprocess.DEVNULL
    ) as process:
        try:
            while True:
                try:
                    httpx.get(f"http://127.0.0.1:{port}")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield port
        finally:
            process.terminate()


def questions() -> Figures:
    """Each router probes each engine once a second; the controller asks each engine in each tick."""
    with answering() as port, TemporaryDirectory() as folder:
        slot = EngineSlot(id="e", arm="stable", port=port, control_port=port)
        control = EngineControl(slot, "policy", "token")
        assert control.status() is not None
        status_s = cpu_s(lambda: [control.status() for _ in range(ASKED)], 3)
        control.close()
        probe_s = asyncio.run(_probes(slot, Path(folder)))
    return {"status_us": status_s / ASKED * 1e6, "probe_us": probe_s / ASKED * 1e6}


async def _probes(slot: EngineSlot, folder: Path) -> float:
    router = Router({"e": slot}, RouterConfig(), Spool(folder, 1 << 20, 1 << 16), intake())
    await router.start()
    await router._probe(slot)
    begun = time.process_time()
    for _ in range(ASKED):
        await router._probe(slot)
    spent = time.process_time() - begun
    assert router.health.is_up("e")
    await router.close()
    return spent


# -- users' keys


def keys() -> Figures:
    """A user's key on a local disk: made, found by a process that has not had it, found again."""
    with TemporaryDirectory() as folder:
        config = Config.model_validate({"run_dir": folder, "model": {"path": "."}})
        names = [f"u-{n:016x}" for n in range(SUBJECTS)]
        makes, finds = KeyStore.of(config), KeyStore.of(config)
        finds.verify()
        made: list[str] = []
        figures = {"key_made_us": cpu_s(lambda: made.extend(makes.key_for(name).generation for name in names))}
        pairs = list(zip(names, made, strict=True))
        figures["key_cold_us"] = cpu_s(lambda: [finds.find(*pair) for pair in pairs])
        figures["key_warm_us"] = cpu_s(lambda: [finds.find(*pair) for pair in pairs])
        files = [path for path in Path(config.privacy.keys_url).rglob("*") if path.is_file()]
        per_subject = {name: spent / SUBJECTS * 1e6 for name, spent in figures.items()}
        return per_subject | {
            "key_files_per_user": (len(files) - 1) / SUBJECTS,
            "key_file_bytes": statistics.fmean(path.stat().st_size for path in files),
        }


# -- the log's client, and the lag that ingest asks for once a second while a session may have ended


def broker() -> Figures:
    found = Figures()
    with TemporaryDirectory() as given, running_broker(Path(given)) as (brokers, _):
        log = KafkaLog(configured(Path(given), brokers).log, "bench")
        for num in PARTITIONS:
            names = [f"{topics.TRACES.name}-{num}", f"{topics.FEEDBACK.name}-{num}"]
            log.create([TopicSpec(name, num, 3600.0) for name in names])
            walls, spent = [], []
            for _ in range(5):
                begun, before = time.perf_counter(), time.process_time()
                log.lag(f"group-{num}", names)
                walls.append(time.perf_counter() - begun)
                spent.append(time.process_time() - before)
            found[f"lag_ms_{num}"] = 1e3 * statistics.median(walls)
            found[f"lag_cpu_ms_{num}"] = 1e3 * statistics.median(spent)
        found |= client(log)
        log.close()
    return found


def client(log: KafkaLog) -> Figures:
    """What Kafka's client takes to write and to read a message of a turn's size, threads and all."""
    log.create([TopicSpec("client", 1, 3600.0)])
    value = random.Random(0).randbytes(MESSAGE_BYTES)
    begun = time.process_time()
    for number in range(MESSAGES):
        log.append("client", str(number), value, {"schema": "trace/3"})
    log.flush(60.0)
    written = time.process_time() - begun
    read = cpu_s(lambda: sum(1 for _ in log.replay("client")))
    return {"produce_us": written / MESSAGES * 1e6, "consume_us": read / MESSAGES * 1e6}


PARTS = (requests, routing, questions, keys, broker)


def measure(advance: Callable[[], None]) -> Figures:
    found = Figures()
    for part in PARTS:
        found |= part()
        advance()
    return found
