"""Ports for servers of tests: below those that the kernel gives to whoever asks for any port, as Ray's servers do."""

import contextlib
import os
import random
import socket

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_FIRST = 20_000 + 6_000 * (_WORKER % 2)  # what one worker found free, the other does not take


def free_ports(num: int) -> list[int]:
    """Different ports of 127.0.0.1 that nothing listens on."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.sample(range(_FIRST, _FIRST + 6_000), 2_000):
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == num:
                return found
    raise OSError(f"{num} free ports are wanted, found {len(found)}")


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
