"""Ports for servers of tests: below those that the kernel gives to whoever asks for any port, as Ray's servers do."""

import contextlib
import random
import socket


def free_ports(num: int) -> list[int]:
    """Different ports of 127.0.0.1 that nothing listens on."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.sample(range(20_000, 32_000), 2_000):
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
