"""A supervised process, with real processes."""

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from processes import is_alive, until

from infra.lifecycle import Deadline
from infra.process import Process, ProcessSpec, ProcessState

SLEEPS = "import time\nwhile True: time.sleep(1)"


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
