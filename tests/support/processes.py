"""What tests ask about processes."""

import time
from collections.abc import Callable

import psutil

from infra.lifecycle import Deadline


def is_alive(process: psutil.Process) -> bool:
    """It runs, and is not merely waiting for its parent to take note of its end."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(is_so: Callable[[], object], seconds: float = 20.0) -> None:
    """Ask until it is so, for so long at most."""
    deadline = Deadline.after(seconds)
    while not is_so():
        assert not deadline.passed()
        time.sleep(0.02)
