"""Every container of the chart as a process of this machine, and the loop closes, over SASL/PLAIN and TLS.

The chart is rendered with the values below and run as `chart_processes` says. KubeRay's part is played by `kuberay`,
with a head and a worker of a real Ray, and its token; the object store is a folder; the brokers are the small broker
behind `secure_broker`, for it speaks neither TLS nor SASL. The collector is off: no binary of it is to be had here.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from certificates import Authority
from chart_pods import Probe, SecretKey
from chart_processes import Pods
from chartcheck import render
from ports import free_port
from processes import until
from secure_broker import HOST, SecureBroker

from infra import broker as small_broker
from infra.lifecycle import Deadline
from infra.process import Process, ProcessSpec

pytestmark = pytest.mark.timeout(900)

USER, PASSWORD = "onstream", "a pass=word, with, all"
STAGES = ("engine", "router", "rollout", "ingest", "lake", "rewards")
HEAD, WORKER = "loop-onstream-ray-head/ray-head", "loop-onstream-ray-learners/ray-worker"
READY_S, SMOKE_S = 600.0, 240


def values(folder: Path, brokers_port: int) -> dict[str, Any]:
    """One engine for each arm, on a core of its own as `cpus` would say it on a laptop; nothing has a GPU."""
    return {
        "images": {"registry": "registry.example.com/ml"},
        "model": {"name": "tiny", "path": f"{folder}/base"},
        "kafka": {
            "brokers": f"{HOST}:{brokers_port}",
            "security": {
                "protocol": "SASL_SSL",
                "mechanism": "PLAIN",
                "username": USER,
                "secret": "kafka-user",
                "caSecret": "kafka-authority",
            },
        },
        "store": {"uri": f"file://{folder}/bucket"},
        "engines": {
            arm: {"gpus": 0, "env": {"VLLM_CPU_OMP_THREADS_BIND": core}}
            for arm, core in (("stable", "0"), ("candidate", "1"))
        },
        "router": {"replicas": 1},
        "trainer": {"ray": {"workers": {"gpus": 0}}},
        "test": {"timeoutSeconds": SMOKE_S},
        "config": {"ingest": {"inactivity_s": 4.0}},  # as long an ended session waits for what comes late
    }


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """With a short name: sockets of Ray and vLLM lie below it."""
    made = Path(tempfile.mkdtemp(prefix="pods-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder / "authority")


@pytest.fixture(scope="module")
def brokers(folder: Path, authority: Authority) -> Iterator[SecureBroker]:
    """What Kafka is to the chart: one that wants a password, over TLS."""
    port = free_port()
    command = small_broker.command(folder / "broker", HOST, port)
    plain = Process(ProcessSpec("broker", tuple(command)), folder / "broker.log", {})
    plain.start()
    until(lambda: small_broker.listens(HOST, port))
    secure = SecureBroker(port, authority.issue(HOST), {USER: PASSWORD})
    yield secure
    secure.close()
    plain.ask_to_stop()
    plain.end(Deadline.after(10.0))


@pytest.fixture(scope="module")
def pods(folder: Path, authority: Authority, brokers: SecureBroker) -> Iterator[Pods]:
    """Everything but the test's own pod, in an order that needs no restart, as Kubernetes would otherwise make them."""
    tiny_model.write(folder / "base")
    secrets = {
        SecretKey("kafka-user", "password"): PASSWORD,
        SecretKey("kafka-authority", "ca.crt"): authority.ca.read_text(),
        SecretKey("onstream-credentials", "control-token"): "token-of-the-tests",
        SecretKey("onstream-credentials", "scoring-token"): "scorers-token-of-the-tests",
        SecretKey("onstream-credentials", "privacy-secret"): "5" * 64,
        SecretKey("loop-onstream-ray", "auth_token"): "rays-token-of-the-tests-0123456789",
    }
    held = Pods(render.render(overlay=values(folder, brokers.port)), folder, secrets)
    try:
        assert held.run(only(held, "bootstrap"), 120.0) == 0
        held.start(*STAGES)
        for node in (HEAD, WORKER):
            held.start_one(node)
            held.wait_ready(READY_S, node)
        held.start("trainer")
        held.wait_ready(READY_S)
        yield held
    finally:
        held.close()


def only(pods: Pods, component: str) -> str:
    """The name of a component's one container."""
    (name,) = (name for name, container in pods.containers.items() if container.component == component)
    return name


def test_every_port_that_a_container_names_is_one_that_it_has(pods: Pods) -> None:
    for name, container in pods.containers.items():
        for port in container.ports.values():
            assert pods.answers(name, Probe("port", "", port)), (name, port)


def test_helms_own_test_follows_a_request_to_its_reward(pods: Pods, brokers: SecureBroker) -> None:
    name = only(pods, "test")
    assert pods.run(name, SMOKE_S + 60.0) == 0, pods.processes[name].last_words()
    assert brokers.num_connections > 0
    assert not [why for why in brokers.refused if "password" in why or "authentication" in why]


def test_no_container_is_left_out(pods: Pods) -> None:
    """Stays behind those that start one."""
    assert pods.processes.keys() == pods.containers.keys()


def test_each_ends_well_within_its_grace_period(pods: Pods) -> None:
    """Stays the last. A node of Ray says 1 when it has ended as it was asked to."""
    statuses = pods.end()
    assert statuses == {name: int(name in (HEAD, WORKER)) for name in statuses}
