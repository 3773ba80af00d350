"""What the small broker of one machine leaves to its clients.

It answers a fetch that finds nothing at once, not after `fetch.wait.max.ms`, and librdkafka asks again at once: left
to itself, an idle consumer takes half a core, and the broker the other half. `CONSUMING` lets it fetch only once all
that it fetched before was taken, and `KafkaSubscription` lets it rest once that was everything there is.

It never takes a dead member out of a group, as Apache Kafka does after the session timeout: the group would stand
still for good. librdkafka cannot ask for that, so `remove_members` speaks the one request: LeaveGroup, version 3
(KIP-345), in plain text, as that broker does.
"""

import socket
import struct
from collections.abc import Collection

CONSUMING = {"queued.min.messages": 1, "fetch.queue.backoff.ms": 5}

_LEAVE_GROUP, _VERSION = 13, 3


def remove_members(address: tuple[str, int], group: str, members: Collection[tuple[str, str | None]]) -> None:
    """Take (member id, lasting name) out of a group. Raises `OSError` when the broker does not answer."""
    listed = b"".join(_text(member) + _text(name) for member, name in members)
    body = struct.pack(">hhi", _LEAVE_GROUP, _VERSION, 0) + _text("") + _text(group)
    request = body + struct.pack(">i", len(members)) + listed
    with socket.create_connection(address, timeout=5.0) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        if not connection.recv(4):
            raise ConnectionError("the broker ended the connection")


def _text(text: str | None) -> bytes:
    return struct.pack(">h", -1) if text is None else struct.pack(">h", len(text.encode())) + text.encode()
