"""The containers of a rendered chart as processes of this machine.

Each pod has an address of its own in 127.0.0.0/8, so that all may have the same ports, and a folder of its own, below
which its volumes are. Where the chart names a Service or a pod, its address stands; where a process would bind all
addresses, its pod's. Everything else is as rendered: command, variables, files, and no variable from here.

Ray binds all addresses, so its nodes have free ports in place of theirs; what KubeRay runs on them is in `kuberay`.
"""

import os
import random
import socket
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import kuberay
from chart_pods import Container, Probe, SecretKey, containers, here, lay_out
from chartcheck.render import FULLNAME, NAMESPACE, Manifest
from chartcheck.tools import ROOT
from ports import free_ports

from infra.lifecycle import Deadline
from infra.process import Process, ProcessSpec, ProcessState

_ALL = "0.0.0.0"
_RESTARTS = 2  # Ray gives its client's server 30 s to start, too few on a busy machine
_STATE = "/var/lib/onstream"  # where images begin


class Pods:
    """Start containers by component; `close` ends what is left. `secrets` is what stands in Secrets."""

    def __init__(self, manifests: list[Manifest], folder: Path, secrets: Mapping[SecretKey, str]) -> None:
        self._folder, self._secrets = folder, secrets
        self._clusters = {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "RayCluster"}
        found = containers(manifests)
        net = f"127.{random.randrange(1, 255)}.{random.randrange(255)}"
        pods = dict.fromkeys(c.pod for c in found)
        self._address = {pod: f"{net}.{number}" for number, pod in enumerate(pods, 1)}
        moving = [(c.pod, port) for c in found if c.component == "learner" for port in c.ports]
        self._ports = dict(zip(moving, free_ports(len(moving)), strict=True))
        self.containers = {f"{c.pod}/{c.name}": self._with_free_ports(c) for c in found}
        self._places = dict(self._named(manifests))
        self.processes: dict[str, Process] = {}

    # -- where things are

    def _with_free_ports(self, container: Container) -> Container:
        moved = {number: self._ports.get((container.pod, name), number) for name, number in container.ports.items()}
        return replace(
            container,
            ports={name: moved[number] for name, number in container.ports.items()},
            probes=tuple(replace(probe, port=moved[probe.port]) for probe in container.probes),
        )

    def _named(self, manifests: Iterable[Manifest]) -> Iterable[tuple[str, str]]:
        """DNS name (with a port, where that moves) -> address."""
        for service in (one for one in manifests if one["kind"] == "Service"):
            spec, name = service["spec"], f"{service['metadata']['name']}.{NAMESPACE}.svc"
            behind = [c for c in self.containers.values() if spec["selector"].items() <= c.labels.items()]
            for port in spec["ports"]:
                assert {c.ports[port["targetPort"]] for c in behind} == {port["port"]}, f"Service {name} moves a port"
            for container in behind:
                own = f"{container.pod}.{name}" if spec.get("clusterIP") == "None" else name
                yield own, self._address[container.pod]
        for cluster in self._clusters:  # KubeRay makes this Service
            head = f"{cluster}-head"
            yield f"{head}-svc.{NAMESPACE}.svc:10001", f"{self._address[head]}:{self._ports[head, 'client']}"

    def _here(self, text: str, container: Container) -> str:
        for name in sorted(self._places, key=len, reverse=True):
            text = text.replace(name, self._places[name])
        assert f".{NAMESPACE}.svc" not in text, f"a name that is nobody's: {text}"
        return here(text.replace(_ALL, self._address[container.pod]), self._root(container))

    def _root(self, container: Container) -> Path:
        return self._folder / container.pod.removeprefix(f"{FULLNAME}-")

    # -- doing

    def start(self, *components: str) -> None:
        """Start all containers of these components that do not run yet."""
        for name, container in self.containers.items():
            if container.component in components and name not in self.processes:
                self.start_one(name)

    def start_one(self, name: str) -> Process:
        container = self.containers[name]
        root = self._root(container)
        for mount in container.mounts:
            Path(f"{root}{mount.path}").mkdir(parents=True, exist_ok=True)
        files = {
            path: text if isinstance(text, SecretKey) else self._here(text, container)
            for path, text in container.files.items()
        }
        lay_out(replace(container, files=files), root, self._secrets)
        begins_in = f"{root}{_STATE}" if container.files else f"{root}/tmp"
        added, command = self._by_kuberay(container) if container.component == "learner" else ({}, container.command)
        argv = ("env", "--chdir", begins_in, *(self._here(word, container) for word in command))
        env = self._environment(container) | added
        self.processes[name] = process = Process(ProcessSpec(name, argv), self._folder / f"{root.name}.log", env)
        process.start()
        return process

    def _by_kuberay(self, node: Container) -> tuple[dict[str, str], tuple[str, ...]]:
        cluster = next(name for name in self._clusters if node.pod.startswith(f"{name}-"))
        head = f"{cluster}-head"
        gcs = f"{self._address[head]}:{self._ports[head, 'gcs']}"
        command = kuberay.command(self._clusters[cluster], node, self._address[node.pod], gcs)
        token = self._secrets[SecretKey(cluster, kuberay.TOKEN_KEY)]
        return kuberay.environment(token) | {"RAY_TMPDIR": f"{self._folder}/ray"}, command

    def _environment(self, container: Container) -> dict[str, str]:
        root = self._root(container)
        image = {
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "CXX": "no-compiler-in-the-image",
            "TMPDIR": f"{root}/tmp",
        }
        given = {
            name: self._secrets[value] if isinstance(value, SecretKey) else self._here(value, container)
            for name, value in container.env.items()
        }
        moved = {name: f"{root}{value}" for name, value in given.items() if value.startswith("/tmp")}
        return image | given | moved

    def run(self, name: str, seconds: float) -> int:
        """A container that ends by itself: its exit status."""
        process = self.start_one(name)
        deadline = Deadline.after(seconds)
        while process.state is not ProcessState.WAITING:
            assert not deadline.passed(), f"within {seconds:.0f} s: {name} ends; {process.last_words()}"
            process.look()
            time.sleep(0.1)
        process.ask_to_stop()
        assert process.exit_status is not None
        return process.exit_status

    def wait_ready(self, seconds: float, *names: str) -> None:
        """Until every probe of these, or of all that run, is answered as the kubelet wants it.

        Whoever ends is started again, as a pod's container is, and must not need that often.
        """
        deadline = Deadline.after(seconds)
        waits = [(name, probe) for name in names or self._running() for probe in self.containers[name].probes]
        while waits := [(name, probe) for name, probe in waits if not self.answers(name, probe)]:
            assert not deadline.passed(), f"within {seconds:.0f} s: {waits}"
            for name in self._running():
                process = self.processes[name]
                process.look()
                assert process.restarts <= _RESTARTS, f"{name} ends again and again: {process.last_words()}"
            time.sleep(0.5)

    def _running(self) -> list[str]:
        return [name for name, process in self.processes.items() if process.state is not ProcessState.STOPPED]

    def answers(self, name: str, probe: Probe) -> bool:
        """Whether a probe succeeds now."""
        address = self._address[self.containers[name].pod]
        try:
            if not probe.path:
                socket.create_connection((address, probe.port), 5.0).close()
                return True
            with urllib.request.urlopen(f"http://{address}:{probe.port}{probe.path}", timeout=5.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def end(self) -> dict[str, int | None]:
        """SIGTERM for all at once: the exit status of each. Whoever does not end within its grace period is killed."""
        names = self._running()
        for name in names:
            self.processes[name].ask_to_stop()
        begun = time.monotonic()
        for name in sorted(names, key=lambda name: self.containers[name].grace_s):
            self.processes[name].end(Deadline(begun + self.containers[name].grace_s))
        return {name: self.processes[name].exit_status for name in names}

    def close(self) -> None:
        """What still runs ends now."""
        for name in self._running():
            self.processes[name].ask_to_stop()
            self.processes[name].end(Deadline.after(0.0))
