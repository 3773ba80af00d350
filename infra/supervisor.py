"""The local supervisor: `onstream up` runs the whole system as processes of this machine.

A process that dies is started again, after a wait that doubles from one to thirty seconds and is forgotten once the
process has lived for a minute. Each process writes one log file, `<run_dir>/logs/<name>.log`. What runs is in
`<run_dir>/state.json`, which `onstream status` reads. When the supervisor ends, by signal or by `kill -9`, so does
everything it started: children are in process groups of their own and get SIGTERM when it dies.
"""

import argparse
import fcntl
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from infra import broker, cli, watch
from infra.config import CONTROL_TOKEN_VAR, SCORING_TOKEN_VAR, Config
from infra.errors import StartError
from infra.files import write_private
from infra.lifecycle import Deadline, Stop
from infra.process import STOP_S, Process, ProcessSpec, ProcessState
from infra.telemetry import providers
from infra.watch import Watch

_BROKER_READY_S = 20.0


def specs(config: Config, config_path: Path) -> list[ProcessSpec]:
    """All processes of a configuration but the broker, in the order they are started."""
    python = sys.executable
    where = ("--config", str(config_path))
    one_thread = {"OMP_NUM_THREADS": "1"}
    engines = [
        ProcessSpec(
            slot.id,
            (python, "-m", "serving", "engine", "--id", slot.id, *where),
            ready_url=f"http://{slot.host}:{slot.port}/health",
            stop_s=2 * config.serving.engine.drain_s + 5.0 + STOP_S,  # replies, captures' way out, vLLM's own
        )
        for slot in config.serving.engines
    ]
    router, rollout = config.serving.router, config.serving.rollout
    lake = ProcessSpec("lake", (python, "-m", "ingest", "lake", *where), one_thread | {"POLARS_MAX_THREADS": "1"})
    return [
        *engines,
        ProcessSpec(
            "router",
            (python, "-m", "serving", "router", *where),
            one_thread,
            f"http://{router.host}:{router.port}/health",
            stop_s=router.drain_s + STOP_S,
        ),
        ProcessSpec(
            "rollout",
            (python, "-m", "serving", "rollout", *where),
            one_thread,
            f"http://{rollout.host}:{rollout.port}/status",
        ),
        ProcessSpec("ingest", (python, "-m", "ingest", *where), one_thread),
        *([lake] if config.ingest.lake.enabled else []),
        ProcessSpec("rewards", (python, "-m", "rewards", *where), one_thread),
        # its threads must not spin for one another on cores that engines want
        ProcessSpec(
            "trainer",
            (python, "-m", "trainer", *where),
            {"OMP_WAIT_POLICY": "passive"},
            niceness=config.trainer.niceness,
        ),
    ]


def with_metrics_ports(specs: Iterable[ProcessSpec], env: Mapping[str, str]) -> list[ProcessSpec]:
    """Where Prometheus reads metrics, each process has a port: the variable's, and those that follow it."""
    if "prometheus" not in providers.exporters(env, "METRICS"):
        return list(specs)
    first = providers.prometheus_port(env)
    return [
        replace(spec, env={**spec.env, providers.PROMETHEUS_PORT_VAR: str(first + number)})
        for number, spec in enumerate(specs)
    ]


class Supervisor:
    """Runs a configuration. Call `start`, then `tick` until done, then `stop`."""

    def __init__(
        self, config: Config, config_path: Path, say: Callable[[str], None], prometheus: Path | None = None
    ) -> None:
        self._config, self._config_path, self._say = config, config_path.resolve(), say
        self._run_dir = Path(config.run_dir)
        self._env = dict(os.environ) | {"PYTHONUNBUFFERED": "1"}
        for variable in (CONTROL_TOKEN_VAR, SCORING_TOKEN_VAR):
            self._env.setdefault(variable, secrets.token_urlsafe(24))
        self._lock: IO[str] | None = None
        self._prometheus = prometheus
        self.watch: Watch | None = None
        self.processes: dict[str, Process] = {}

    def claim(self) -> None:
        """Take `run_dir`, until `stop` or the end of this process. Raises `StartError` where another has it."""
        if self._lock is not None:
            return
        self._run_dir.mkdir(parents=True, exist_ok=True)
        lock = (self._run_dir / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.close()
            raise StartError(f"run_dir: {self._run_dir.absolute()} is in use: Onstream runs there already") from exc
        self._lock = lock

    def start(self) -> None:
        """Checks, broker, bootstrap, then everything else at once; with `prometheus`, watched by it.

        Raises:
            StartError: `run_dir` is in use, a port is taken, a check or the bootstrap fails, or the broker does not
                come up.
        """
        self.claim()
        write_private(self._config.control_token_path, self._env[CONTROL_TOKEN_VAR])  # for `onstream rollout`
        if self._config.health.port is not None:
            raise StartError("health.port: the processes of one machine cannot share a port; `onstream up` takes none")
        self._check_ports()
        (self._run_dir / "logs").mkdir(parents=True, exist_ok=True)
        self._command("check")
        (self._run_dir / "resolved.yaml").write_text(self._config.dump())
        if self._config.log.local:
            self._start_broker()
        self._command("bootstrap")
        wanted = with_metrics_ports(specs(self._config, self._config_path), self._env)
        for spec in self._watched(wanted):
            self._add(spec).start()
        self._write_state()

    def _watched(self, wanted: list[ProcessSpec]) -> list[ProcessSpec]:
        if self._prometheus is None:
            return wanted
        taken = (port for _, port in self._ports().values())
        self.watch = watch.plan(self._prometheus, (spec.name for spec in wanted), taken)
        mine = [watch.measured(spec, self.watch) for spec in wanted]
        return [*mine, watch.process(self.watch, self._run_dir)]

    def _add(self, spec: ProcessSpec) -> Process:
        process = Process(spec, self._run_dir / "logs" / f"{spec.name}.log", self._env)
        self.processes[spec.name] = process
        return process

    def _ports(self) -> dict[str, tuple[str, int]]:
        """Every address that the configuration gives to a process: key -> host and port."""
        serving = self._config.serving
        wanted = {
            "serving.router.port": (serving.router.bound, serving.router.port),
            "serving.rollout.port": (serving.rollout.bound, serving.rollout.port),
            "trainer.port": (self._config.trainer.bound, self._config.trainer.port),
        }
        for slot in serving.engines:
            bound = serving.bound(slot)
            wanted[f"serving.engines {slot.id} port"] = (bound, slot.port)
            wanted[f"serving.engines {slot.id} control_port"] = (bound, slot.control_port)
            if slot.scoring_port is not None:
                wanted[f"serving.engines {slot.id} scoring_port"] = (bound, slot.scoring_port)
        if self._config.log.local:
            wanted["log.brokers"] = broker.address(self._config.log)
        return wanted

    def _check_ports(self) -> None:
        owners: dict[tuple[str, int], str] = {}
        for name, (host, port) in self._ports().items():
            if (host, port) in owners:
                raise StartError(f"{name}: {host}:{port} is also {owners[host, port]}")
            owners[host, port] = name
        for (host, port), name in owners.items():
            if broker.listens(host, port):
                raise StartError(f"{name}: port {port} on {host} is taken by another process")

    def _start_broker(self) -> None:
        host, port = broker.address(self._config.log)
        data = self._run_dir / "broker"
        data.mkdir(parents=True, exist_ok=True)
        process = self._add(ProcessSpec("broker", tuple(broker.command(data.resolve(), host, port))))
        process.start()
        deadline = Deadline.after(_BROKER_READY_S)
        while not broker.listens(host, port):
            if deadline.passed() or (process.look() and process.state is ProcessState.WAITING):
                raise StartError(f"the broker does not listen on {host}:{port}: {process.last_words()}")
            time.sleep(0.1)
        process.state = ProcessState.READY
        self._say(f"broker is ready on {host}:{port}")

    def _command(self, name: str) -> None:
        """Run `onstream <name>` to its end. Raises `StartError` with what it said when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "infra.cli", name, "--config", str(self._config_path)],
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # a Ctrl-C is for the supervisor
        )
        (self._run_dir / "logs" / f"{name}.log").write_text(done.stderr)
        if done.returncode:
            raise StartError(done.stderr.rpartition("onstream: ")[2].strip())

    def tick(self) -> None:
        """Look at every process once."""
        lines = [line for process in self.processes.values() if (line := process.look())]
        for line in lines:
            self._say(line)
        if lines:
            self._write_state()

    def is_ready(self) -> bool:
        """Everything has been ready at the same time; who watches is no part of it."""
        wanted = (process for name, process in self.processes.items() if name != watch.NAME)
        return all(process.state is ProcessState.READY for process in wanted)

    def is_watched(self) -> bool:
        """Prometheus runs and answers."""
        return self.watch is not None and self.processes[watch.NAME].state is ProcessState.READY

    def where_to_look(self) -> str:
        """The pages of Prometheus, which watches."""
        assert self.watch is not None
        return f"watched by Prometheus:\n{self.watch.told()}"

    def stop(self) -> None:
        """Everything ends: the router first, so that replies are finished; the broker last, so that all can flush."""
        others = [name for name in self.processes if name not in ("router", "broker")]
        for names in (["router"], others, ["broker"]):
            ending = [self.processes[name] for name in names if name in self.processes]
            for process in ending:
                process.ask_to_stop()
            begun = time.monotonic()
            for process in ending:
                process.end(Deadline(begun + process.spec.stop_s))
        if self.processes:
            self._write_state()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _write_state(self) -> None:
        state: dict[str, Any] = {
            "pid": os.getpid(),
            "processes": {
                name: {
                    "pid": process.pid,
                    "state": process.state,
                    "restarts": process.restarts,
                    "started_at": process.started_at,
                    "log": str(process.log_file),
                    **({"metrics": self.watch.metrics_url(name)} if self.watch and name in self.watch.ports else {}),
                }
                for name, process in self.processes.items()
            },
        }
        part = self._run_dir / "state.json.part"
        part.write_text(json.dumps(state, indent=1))
        part.replace(self._run_dir / "state.json")


def main(argv: list[str]) -> int:
    """`onstream up`: run everything until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="onstream up", description="Run the whole system here until Ctrl-C.")
    cli.add_config(parser)
    parser.add_argument("--watch", action="store_true", help="Prometheus too, with the alert rules of the chart")
    args = parser.parse_args(argv)

    def run(config: Config) -> None:
        prometheus = watch.find() if args.watch else None
        if args.watch and prometheus is None:
            print(watch.HOW_TO_GET, flush=True)
        supervisor = Supervisor(config, Path(args.config), lambda line: print(line, flush=True), prometheus)
        stop = Stop.on_signals()
        router = config.serving.router
        ready = f"ready: http://{router.host}:{router.port}/v1 serves {config.model.name}; Ctrl-C ends it"
        coming = [(supervisor.is_watched, supervisor.where_to_look), (supervisor.is_ready, lambda: ready)]
        try:
            supervisor.start()
            print("starting; an engine takes a minute or two", flush=True)
            while not stop.wait(0.5):
                supervisor.tick()
                for news in [(is_so, told) for is_so, told in coming if is_so()]:
                    print(news[1](), flush=True)
                    coming.remove(news)
        finally:
            if supervisor.processes:
                print(f"stopping; replies in progress have {config.serving.router.drain_s} s to finish", flush=True)
            supervisor.stop()

    return cli.guarded(args.config, run)
