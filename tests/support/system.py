"""The whole system, for real, on free ports: vLLM engines, broker, Ray and all, under the supervisor."""

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from otlp import Receiver
from ports import free_ports
from processes import is_alive

from infra import config
from infra.config import CONTROL_TOKEN_VAR, SCORING_TOKEN_VAR, Config
from infra.lifecycle import Deadline
from infra.process import Process, ProcessSpec, ProcessState
from infra.supervisor import Supervisor
from ingest.audit.account import Account, Limits
from ingest.audit.reading import take
from ingest.log import reader, topics
from ingest.log.connect import connect
from ingest.log.protocol import EventLog
from ingest.records.events import Record, Version
from ingest.store import adapters
from ingest.store.adapters import Adapter
from ingest.store.versions import VersionStore

MODEL = "smollm2"
TOKEN = "token-of-the-tests"
SCORERS_TOKEN = "scorers-token-of-the-tests"
SPEC = """
name: tests
components:
  - {name: thumb, scorer: feedback, params: {names: [thumb]}}
  - {name: sufficiency, scorer: sufficiency, params: {num_sampled: 0}}
  - {name: faithfulness, scorer: faithfulness, weight: 0, factor: true}
guardrails: [{name: completed, scorer: reply, params: {finish_reasons: [stop, length]}}]
"""


def write_config(folder: Path, model: Path, learner: Mapping[str, Any] | None = None) -> Path:
    broker, router, rollout, trainer, *engines = free_ports(10)
    spec = folder / "spec.yaml"
    spec.write_text(SPEC)
    given = {
        "run_dir": str(folder),
        "model": {"path": str(model), "name": MODEL},
        "log": {"brokers": f"127.0.0.1:{broker}", "partitions": 2, "timeout_s": 10.0},
        "serving": {
            "engines": [
                {"id": f"{arm}-0", "arm": arm, "cpus": cpu}
                | dict(zip(("port", "control_port", "scoring_port"), ports, strict=True))
                for arm, cpu, ports in (("stable", "0", engines[:3]), ("candidate", "1", engines[3:]))
            ],
            "engine": {"drain_s": 30},  # three replies at once on half a core that does much else
            "router": {"port": router, "retry_for_s": 60.0},
            "rollout": {
                "port": rollout,
                "suites": {"files": ["sanity"]},
                "watch": {"share": 0.3, "min_units": 6, "max_units": 80},
                "gate": {
                    "margin": 0.5, "alpha": 0.2, "min_champion_units": 6, "ramp": [{"share": 0.5}], "max_s": 3600,
                    "settle_s": 0,
                    "guardrails": [{"name": "completed", "margin": 0.5}],
                },
            },
        },
        "ingest": {"inactivity_s": 4.0, "held_out_share": 0.1},
        "rewards": {"spec": str(spec)},
        "trainer": {
            "batch_turns": 16, "minibatch_turns": 8, "max_version_turns": 16, "lr": 1e-6, "niceness": 0,
            "port": trainer, **(learner or {}),
        },
    }  # fmt: skip
    path = folder / "onstream.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


class ProbedSupervisor(Supervisor):
    """Gives processes a health port each, as pods have one: `health_ports`, by the process's name."""

    health_ports: Mapping[str, int] = {}

    def _add(self, spec: ProcessSpec) -> Process:
        if (port := self.health_ports.get(spec.name)) is not None:
            spec = replace(spec, env={**spec.env, "ONSTREAM__HEALTH__PORT": str(port)})
        return super()._add(spec)


class System:
    """A running system. A thread ticks its supervisor."""

    def __init__(self, folder: Path, model: Path, trainer: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        path = write_config(folder, model, trainer)
        self.config: Config = config.load(path, {})
        os.environ[CONTROL_TOKEN_VAR] = TOKEN
        os.environ[SCORING_TOKEN_VAR] = SCORERS_TOKEN
        self.receiver = Receiver(folder / "telemetry.bin")  # below what tests look through for what must not be written
        self._telemetry = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.url,
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        }
        os.environ.update(self._telemetry)
        self._receiving = ExitStack()
        self.lines: list[str] = []
        self.supervisor = ProbedSupervisor(self.config, path, self.lines.append)
        names = ("stable-0", "trainer")
        self.supervisor.health_ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        serving = self.config.serving
        self.slots = {slot.id: slot for slot in serving.engines}
        self.url = f"http://{serving.router.host}:{serving.router.port}"
        self.store = VersionStore(self.config.store.url)

    def start(self) -> None:
        self._receiving.enter_context(self.receiver)
        self.supervisor.start()
        self._ticker.start()
        self.until(self.supervisor.is_ready, 280.0, "everything is ready")

    def _tick(self) -> None:
        while not self._over.wait(0.2):
            self.supervisor.tick()

    def stop(self) -> None:
        self._over.set()
        self._ticker.join()
        self.supervisor.stop()
        self._receiving.close()
        for name in self._telemetry:
            del os.environ[name]

    # -- asking

    def until(self, is_so: Callable[[], Any], seconds: float, what: str) -> Any:
        """Ask until it is so, and return what was answered."""
        deadline = Deadline.after(seconds)
        while not (found := is_so()):
            assert not deadline.passed(), f"within {seconds:.0f} s: {what}; {self.lines[-5:]}"
            time.sleep(0.2)
        return found

    def chat(self, text: str, url: str | None = None, session: str | None = None, **body: Any) -> dict[str, Any]:
        headers = {"x-onstream-session": session} if session else {}
        headers |= body.pop("headers", {})
        given = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 16} | body
        answer = httpx.post(f"{url or self.url}/v1/chat/completions", json=given, headers=headers, timeout=120.0)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def thumb(self, completion_id: str, value: float) -> None:
        answer = httpx.post(f"{self.url}/v1/feedback", json={"id": completion_id, "value": value}, timeout=30.0)
        assert answer.status_code == 202, answer.text

    def control(self, engine: str, method: str, path: str, **kwargs: Any) -> httpx.Response:
        slot = self.slots[engine]
        headers = {"authorization": f"Bearer {TOKEN}"}
        url = f"http://{slot.host}:{slot.control_port}{path}"
        return httpx.request(method, url, headers=headers, timeout=120.0, **kwargs)

    def version_of(self, engine: str) -> int:
        return int(self.control(engine, "GET", "/status").json()["version"])

    def user_url(self, engine: str) -> str:
        return f"http://{self.slots[engine].host}:{self.slots[engine].port}"

    def health(self, name: str) -> dict[str, int]:
        """Path -> status of a process's health port, where it has one."""
        url = f"http://127.0.0.1:{self.supervisor.health_ports[name]}"
        return {path: httpx.get(url + path, timeout=5.0).status_code for path in ("/live", "/started", "/ready")}

    def rollout(self) -> dict[str, Any]:
        own = self.config.serving.rollout
        try:
            found: dict[str, Any] = httpx.get(f"http://{own.host}:{own.port}/status", timeout=5.0).json()
        except httpx.HTTPError:
            return {}
        return found

    def log(self, client_id: str = "tests") -> EventLog:
        return connect(self.config, client_id=client_id)

    def records(self, topic: topics.Topic) -> list[Any]:
        log = self.log()
        try:
            return list(reader.replay(log, topic, topic.record))
        finally:
            log.close()

    def send(self, topic: topics.Topic, record: Record) -> None:
        log = self.log()
        try:
            reader.send(log, topic, "", record)
            log.flush(10.0)
        finally:
            log.close()

    def account(self) -> Account:
        log = self.log()
        try:
            return take(log, Limits.of(self.config), time.time())
        finally:
            log.close()

    # -- doing

    def kill(self, name: str) -> None:
        """`kill -9`; wait until the supervisor has started another one, and nothing is left of the first."""
        process = self.supervisor.processes[name]
        restarts = process.restarts
        assert process.pid is not None
        left = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        self.until(lambda: process.restarts > restarts, 40.0, f"{name} is started again")
        self.until(lambda: not any(map(is_alive, left)), 10.0, f"what {name} had started is gone")

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """The process stands still for the length of a block."""
        pid = self.supervisor.processes[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def without_store(self) -> Iterator[None]:
        """The store is away for the length of a block."""
        store = Path(self.config.store.url)
        away = store.rename(store.with_name("away"))
        try:
            yield
        finally:
            away.rename(store)

    def wait_ready(self, name: str, seconds: float = 200.0) -> None:
        process = self.supervisor.processes[name]
        self.until(lambda: process.state is ProcessState.READY, seconds, f"{name} is ready")

    def publish_shifted(self, scale: float, parent: int = 0) -> Version:
        """A version whose matrices are `parent`'s with noise of `scale` of their own spread, and its record."""
        import torch
        from safetensors.torch import load_file, save_file

        above = self.store.read(parent)
        number = self.store.versions()[-1] + 1
        folder = self.folder / f"made-{number}"
        shutil.copytree(Path(self.config.store.url) / above.folder, folder)
        (folder / "manifest.json").unlink()
        torch.manual_seed(number)
        weights = load_file(folder / "model.safetensors")
        for name, weight in weights.items():
            if weight.dim() > 1:
                wide = weight.float()
                weights[name] = (wide + scale * wide.std() * torch.randn_like(wide)).to(weight.dtype)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        version = self.store.publish(number, folder, above, {"trace_ids": []}, {}, time.time())
        self.send(topics.VERSIONS, version)
        return version

    def publish_adapters(self, scale: float) -> Version:
        """A version that changes matrices of version 0 by products of rank 4, of `scale` of their own spread."""
        import torch
        from safetensors.torch import load_file

        base, number = self.store.read(0), self.store.versions()[-1] + 1
        torch.manual_seed(number)
        changes = {}
        for name, weight in load_file(Path(self.config.store.url) / base.folder / "model.safetensors").items():
            if name.endswith("_proj.weight"):
                low, high = torch.randn(4, weight.shape[1]), torch.randn(weight.shape[0], 4)
                changes[name] = Adapter(
                    low, high * scale * weight.float().std() / 2
                )  # a sum of 4 products spreads by 2
        folder = self.folder / f"made-{number}"
        folder.mkdir()
        for name, data in adapters.files(changes, rank=4, alpha=4.0).items():
            (folder / name).write_bytes(data)
        version = self.store.publish(number, folder, base, {"trace_ids": []}, {}, time.time(), base)
        self.send(topics.VERSIONS, version)
        return version

    @contextmanager
    def traffic(self, users: int = 3) -> Iterator["Traffic"]:
        """Users who talk and thumb until the block ends."""
        traffic = Traffic(self)
        threads = [threading.Thread(target=traffic.run, args=(n,), daemon=True) for n in range(users)]
        for thread in threads:
            thread.start()
        try:
            yield traffic
        finally:
            traffic.over.set()
            for thread in threads:
                thread.join(120.0)


class Traffic:
    """What the users of a block went through."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.over = threading.Event()
        self.served = 0
        self.failed: list[str] = []

    def run(self, seed: int) -> None:
        rng = random.Random(seed)
        while not self.over.is_set():
            try:
                reply = self._system.chat(
                    f"Tell me about the number {rng.randrange(1000)}.", session=f"u{seed}-{rng.random()}", max_tokens=8
                )
                self._system.thumb(reply["id"], rng.choice([-1.0, 1.0]))
                self.served += 1
            except (AssertionError, httpx.HTTPError) as exc:
                self.failed.append(f"{type(exc).__name__}: {exc}")
