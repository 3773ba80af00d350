"""Processes of the supervisor, with real processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from processes import is_alive

from infra import config
from infra.config import Config
from infra.errors import StartError
from infra.lifecycle import Deadline
from infra.process import Process, ProcessSpec, ProcessState
from infra.supervisor import Supervisor, specs

SLEEPS = "import time\nwhile True: time.sleep(1)"


def until(is_so: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = Deadline.after(seconds)
    while not is_so():
        assert not deadline.passed()
        time.sleep(0.02)


def process(folder: Path, code: str, name: str = "child") -> Process:
    spec = ProcessSpec(name, (sys.executable, "-c", code))
    return Process(spec, folder / f"{name}.log", os.environ)


def test_a_killed_process_is_started_again_and_says_so(tmp_path: Path) -> None:
    child = process(tmp_path, SLEEPS)
    child.start()
    assert child.look() is not None  # ready
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    lines: list[str] = []
    until(lambda: lines.append(child.look() or "") or child.restarts == 1)
    assert any("killed by signal 9; starting it again in" in line for line in lines)
    assert child.pid != first
    child.ask_to_stop()
    child.end(Deadline.after(5.0))


def test_each_crash_waits_longer_than_the_one_before(tmp_path: Path) -> None:
    waits = Process._new_waits()
    taken = [next(waits) for _ in range(7)]
    assert all(later > earlier for earlier, later in pairwise(taken[:4]))
    assert max(taken) <= 36.0


def test_the_last_words_of_a_failure_are_told(tmp_path: Path) -> None:
    child = process(tmp_path, "import sys; sys.exit('model.path: nothing there')")
    child.start()
    lines: list[str] = []
    until(lambda: lines.append(child.look() or "") or child.state is ProcessState.WAITING)
    assert "ended with status 1" in lines[-1]
    assert "model.path: nothing there" in lines[-1]


@pytest.mark.parametrize(
    "how",
    ["start_new_session=True", "env={}"],
    ids=["in a session of its own", "with an environment that cannot be read"],
)
def test_what_a_dead_process_left_dies_too(tmp_path: Path, how: str) -> None:
    code = (
        "import subprocess, sys\n"
        f"print(subprocess.Popen([sys.executable, '-c', {SLEEPS!r}], {how}).pid, flush=True)\n{SLEEPS}"
    )
    child = process(tmp_path, code)
    child.start()
    until(lambda: child.log_file.read_text().strip())
    grandchild = psutil.Process(int(child.log_file.read_text()))
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: child.look() and child.state is ProcessState.WAITING)
    until(lambda: not is_alive(grandchild))


@pytest.mark.parametrize("answer", [b"", b"\0\0\x18\x04no HTTP\r\n", b"HTTP/1.1 503 not yet\r\n\r\n"])
def test_whatever_else_answers_on_its_port_a_process_is_not_ready(tmp_path: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:

        def reply() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        spec = ProcessSpec(
            "child", (sys.executable, "-c", SLEEPS), ready_url=f"http://127.0.0.1:{server.getsockname()[1]}"
        )
        child = Process(spec, tmp_path / "child.log", os.environ)
        child.start()
        replied = pool.submit(reply)
        assert child.look() is None
        replied.result(10.0)
    assert child.state is ProcessState.STARTING
    child.ask_to_stop()
    child.end(Deadline.after(5.0))


def test_a_process_that_ignores_sigterm_is_ended_all_the_same(tmp_path: Path) -> None:
    child = process(tmp_path, f"import signal\nsignal.signal(15, signal.SIG_IGN)\nprint('deaf', flush=True)\n{SLEEPS}")
    child.start()
    until(lambda: "deaf" in child.log_file.read_text())
    child.ask_to_stop()
    child.end(Deadline.after(0.2))
    assert child.exit_status == -signal.SIGKILL


PARENT = """
import os, sys, time
from pathlib import Path
from infra.process import Process, ProcessSpec
spec = ProcessSpec("child", (sys.executable, "-c", "import time; time.sleep(60)"))
child = Process(spec, Path(sys.argv[1]), os.environ)
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not is_alive(child))


@pytest.fixture
def given(tmp_path: Path) -> Config:
    path = tmp_path / "onstream.yaml"
    path.write_text(f"run_dir: {tmp_path}\nmodel: {{path: {tmp_path}/none}}\n")
    return config.load(path, {})


def test_a_taken_port_is_named_before_anything_starts(given: Config, tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        router = given.serving.router.model_copy(update={"port": port})
        taken = given.model_copy(update={"serving": given.serving.model_copy(update={"router": router})})
        supervisor = Supervisor(taken, tmp_path / "onstream.yaml", print)
        with pytest.raises(StartError, match=rf"serving.router.port: port {port} on 127.0.0.1 is taken"):
            supervisor.start()
    assert supervisor.processes == {}
    supervisor.stop()


def test_one_port_given_twice_is_named_with_both_places(given: Config, tmp_path: Path) -> None:
    router = given.serving.router.model_copy(update={"port": given.serving.rollout.port})
    twice = given.model_copy(update={"serving": given.serving.model_copy(update={"router": router})})
    supervisor = Supervisor(twice, tmp_path / "onstream.yaml", print)
    with pytest.raises(StartError, match=r"serving.rollout.port: .* is also serving.router.port"):
        supervisor.start()
    supervisor.stop()


def test_every_stage_of_the_loop_is_a_process(given: Config, tmp_path: Path) -> None:
    names = [spec.name for spec in specs(given, tmp_path / "onstream.yaml")]
    assert names == ["stable-0", "candidate-0", "router", "rollout", "ingest", "rewards", "trainer"]


def test_a_run_dir_in_use_is_refused_and_left_as_it_was(given: Config, tmp_path: Path) -> None:
    first = Supervisor(given, tmp_path / "onstream.yaml", print)
    first.claim()
    state = tmp_path / "state.json"
    state.write_text("{}")
    second = Supervisor(given, tmp_path / "onstream.yaml", print)
    with pytest.raises(StartError, match=r"run_dir: .* is in use"):
        second.start()
    second.stop()
    assert state.read_text() == "{}"
    first.stop()
    second.claim()
    second.stop()


STOPS = """
import signal, sys, time
def end(*_):
    time.sleep(float(sys.argv[1]))
    print("ended at", time.time(), flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
while True: time.sleep(1)
"""


def test_the_router_ends_its_replies_before_the_engines_end(given: Config, tmp_path: Path) -> None:
    supervisor = Supervisor(given, tmp_path / "onstream.yaml", print)
    for name, takes_s in {"broker": "0", "stable-0": "0", "router": "0.3"}.items():
        spec = ProcessSpec(name, (sys.executable, "-c", STOPS, takes_s))
        supervisor.processes[name] = Process(spec, tmp_path / f"{name}.log", os.environ)
        supervisor.processes[name].start()
    logs = {name: process.log_file for name, process in supervisor.processes.items()}
    until(lambda: all("up" in log.read_text() for log in logs.values()))
    supervisor.stop()
    ended = {name: float(log.read_text().split()[-1]) for name, log in logs.items()}
    assert sorted(ended, key=lambda name: ended[name]) == ["router", "stable-0", "broker"]
