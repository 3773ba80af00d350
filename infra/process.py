"""One supervised process: started, restarted with backoff, ended with everything it left behind."""

import ctypes
import http.client
import os
import secrets
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import psutil

from infra.lifecycle import Deadline, backoff_s

STOP_S = 15.0  # vLLM ends in about 3 s and Ray in about 5 s here
_FORGET_S = 60.0
_PR_SET_PDEATHSIG = 1
_MARK_VAR = "ONSTREAM_PROCESS"


class ProcessState(StrEnum):
    """Where a process stands."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting to restart"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ProcessSpec:
    """How to run one process. `ready_url` answers 200 once it is ready; without one, running is ready.

    `stop_s` is how long it may take to end after SIGTERM.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ready_url: str | None = None
    niceness: int = 0
    stop_s: float = STOP_S


class Process:
    """One supervised process."""

    def __init__(self, spec: ProcessSpec, log_file: Path, env: Mapping[str, str]) -> None:
        self.spec, self.log_file = spec, log_file
        self._mark = secrets.token_hex(8)
        self._env = dict(env) | dict(spec.env) | {_MARK_VAR: self._mark}
        self._child: subprocess.Popen[bytes] | None = None
        self._waits = self._new_waits()
        self._restart_at = 0.0
        self.started_at = 0.0
        self.restarts = 0
        self.exit_status: int | None = None
        self.state = ProcessState.STOPPED

    @staticmethod
    def _new_waits() -> Iterator[float]:
        return backoff_s(1.0, 30.0)

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                self.spec.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
                preexec_fn=_child_setup(self.spec.niceness),
            )
        self.started_at = time.time()
        self.state = ProcessState.STARTING

    def look(self) -> str | None:
        """Reap, restart when due, notice readiness; a line about what changed, if something did."""
        if self.state is ProcessState.STOPPED or self._child is None:
            return None
        if self.state is ProcessState.WAITING:
            return self._restart_if_due()
        if (status := self._child.poll()) is not None:
            return self._plan_restart(self._child, status)
        if self.state is ProcessState.STARTING and _answers(self.spec.ready_url):
            self.state = ProcessState.READY
            return f"{self.spec.name} is ready after {time.time() - self.started_at:.0f} s"
        return None

    def _plan_restart(self, child: subprocess.Popen[bytes], status: int) -> str:
        self.exit_status = status
        _kill_left_behind(child.pid, self._mark)
        if time.time() - self.started_at > _FORGET_S:
            self._waits = self._new_waits()
        wait = next(self._waits)
        self._restart_at = time.monotonic() + wait
        self.state = ProcessState.WAITING
        how = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"{self.spec.name} {how}; starting it again in {wait:.1f} s ({self.last_words()})"

    def _restart_if_due(self) -> str | None:
        if time.monotonic() < self._restart_at:
            return None
        self.restarts += 1
        self.start()
        return f"{self.spec.name} is started again"

    def last_words(self) -> str:
        """The last line of its log."""
        try:
            lines = self.log_file.read_bytes()[-4000:].decode(errors="replace").strip().splitlines()
        except OSError:
            return "no log"
        return lines[-1] if lines else "an empty log"

    def ask_to_stop(self) -> None:
        self.state = ProcessState.STOPPED
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def end(self, deadline: Deadline) -> None:
        """Wait for the end that was asked for, then take the whole group down."""
        if self._child is None:
            return
        try:
            self.exit_status = self._child.wait(deadline.left_s())
        except subprocess.TimeoutExpired:
            self._child.kill()
            self.exit_status = self._child.wait()
        _kill_left_behind(self._child.pid, self._mark)


def _child_setup(niceness: int) -> Callable[[], None]:
    """Runs in the child before it becomes its program: lower priority, and SIGTERM when the supervisor dies."""
    libc = ctypes.CDLL(None)

    def setup() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        os.nice(niceness)

    return setup


def _kill_left_behind(leader: int, mark: str) -> None:
    """What a dead process leaves: in the session it led, vLLM's engine core; in sessions of their own, Ray's servers.

    The mark alone would miss the first: titles that processes give themselves overwrite the environment one can read.
    """
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader or process.environ().get(_MARK_VAR) == mark:
                process.kill()
        except (psutil.Error, OSError):  # it ended in this moment, or is another user's
            continue


def _answers(url: str | None) -> bool:
    if url is None:
        return True
    try:
        with urllib.request.urlopen(url, timeout=1.0) as answer:  # noqa: S310 - an address of our configuration
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):  # also an answer that is no HTTP: it is not ours
        return False
