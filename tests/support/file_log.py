"""A log to be read only, from files of messages: for benchmarks of readers that no small broker could fill in time.

Below a folder, `<topic>/<partition>`: for each message the lengths of its key, headers and value, and these.
"""

import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from infra.errors import LogError
from ingest.log.protocol import Message, Positions

_LENGTHS = struct.Struct("<HHI")


class Files:
    """Writes messages, each into the partition of its key."""

    def __init__(self, folder: Path, num_partitions: int) -> None:
        self._folder, self._num_partitions = folder, num_partitions
        self._files: dict[tuple[str, int], BinaryIO] = {}

    def append(self, topic: str, key: str, value: bytes, headers: dict[str, str]) -> None:
        partition = zlib.crc32(key.encode()) % self._num_partitions
        file = self._files.get((topic, partition))
        if file is None:
            path = self._folder / topic / str(partition)
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._files[topic, partition] = path.open("wb", 1 << 20)
        packed, name = "\0".join(part for pair in headers.items() for part in pair).encode(), key.encode()
        file.write(_LENGTHS.pack(len(name), len(packed), len(value)) + name + packed + value)

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class FileLog:
    """As much of an `EventLog` as a reader of everything needs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ends(self, topic: str) -> dict[int, int]:
        return {number: _count(self._folder / topic / str(number)) for number in self._partitions(topic)}

    def replay(
        self, topic: str, begin: Positions | None = None, partitions: Collection[int] | None = None
    ) -> Iterator[Message]:
        assert begin is None, "not here"
        for number in self._partitions(topic):
            if partitions is None or number in partitions:
                with (self._folder / topic / str(number)).open("rb", 1 << 20) as file:
                    yield from _messages(file, topic, number)

    def close(self) -> None:
        """Nothing is held."""

    def _partitions(self, topic: str) -> list[int]:
        folder = self._folder / topic
        return sorted(int(path.name) for path in folder.iterdir()) if folder.is_dir() else []


def _count(path: Path) -> int:
    num = 0
    with path.open("rb", 1 << 20) as file:
        while lengths := file.read(_LENGTHS.size):
            file.seek(sum(_LENGTHS.unpack(lengths)), 1)
            num += 1
    return num


def _messages(file: BinaryIO, topic: str, partition: int) -> Iterator[Message]:
    offset = 0
    while lengths := file.read(_LENGTHS.size):
        num_key, num_headers, num_value = _LENGTHS.unpack(lengths)
        whole = file.read(num_key + num_headers + num_value)
        parts = whole[num_key : num_key + num_headers].decode().split("\0")
        headers = dict(zip(parts[::2], parts[1::2], strict=True))
        yield Message(topic, partition, offset, whole[:num_key].decode(), whole[num_key + num_headers :], headers)
        offset += 1


class FailingLog(FileLog):
    """One that is away when rewards are asked for."""

    def replay(
        self, topic: str, begin: Positions | None = None, partitions: Collection[int] | None = None
    ) -> Iterator[Message]:
        if topic == "rewards":
            raise LogError("rewards: away")
        return super().replay(topic, begin, partitions)


class EndlessLog(FileLog):
    """One whose traces never end, but in the partitions that the first of two processes reads."""

    def replay(
        self, topic: str, begin: Positions | None = None, partitions: Collection[int] | None = None
    ) -> Iterator[Message]:
        yield from super().replay(topic, begin, partitions)
        while partitions and 0 not in partitions:
            yield from super().replay(topic, begin, partitions)
