"""What tests ask about processes."""

import psutil


def is_alive(process: psutil.Process) -> bool:
    """It runs, and is not merely waiting for its parent to take note of its end."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
