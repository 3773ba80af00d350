"""Folders between the trainer and a learner on another machine: over Ray, piece by piece, and through no shared disk.

The learner reads and writes folders. Where it sees the trainer's, it takes them as they are; elsewhere it works in a
folder of its own, whose files are carried.
"""

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.files import sync

PIECE_BYTES = 64 << 20


class Desk:
    """The learner's side, in its actor."""

    def sees(self, file: str) -> bool:
        return Path(file).exists()

    def make_folder(self) -> str:
        return tempfile.mkdtemp(prefix="onstream-")

    def names(self, folder: str) -> list[str]:
        root = Path(folder)
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def read(self, folder: str, name: str, offset: int, num_bytes: int) -> bytes:
        with (Path(folder) / name).open("rb") as file:
            file.seek(offset)
            return file.read(num_bytes)

    def append(self, folder: str, name: str, piece: bytes) -> None:
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(piece)

    def drop(self, folder: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)


class Carrier:
    """The trainer's side. `wait` gives the result of an actor's call."""

    def __init__(self, actor: Any, wait: Callable[[Any], Any], is_needed: bool, piece_bytes: int = PIECE_BYTES) -> None:
        self._actor, self._wait, self._is_needed, self._piece_bytes = actor, wait, is_needed, piece_bytes

    @contextmanager
    def to_learner(self, folder: Path) -> Iterator[str]:
        """Where the learner finds the files of `folder`, for the length of a block."""
        if not self._is_needed:
            yield str(folder.absolute())
            return
        with self._theirs() as there:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                with path.open("rb") as file:
                    while piece := file.read(self._piece_bytes):
                        self._wait(self._actor.append.remote(there, str(path.relative_to(folder)), piece))
            yield there

    @contextmanager
    def from_learner(self, folder: Path) -> Iterator[str]:
        """Where the learner shall write files; after the block they are in `folder`, durable."""
        if not self._is_needed:
            yield str(folder.absolute())
            return
        with self._theirs() as there:
            yield there
            for name in self._wait(self._actor.names.remote(there)):
                self._fetch(there, name, folder / name)

    def _fetch(self, there: str, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while piece := self._wait(self._actor.read.remote(there, name, file.tell(), self._piece_bytes)):
                file.write(piece)
        sync(path)

    @contextmanager
    def _theirs(self) -> Iterator[str]:
        there: str = self._wait(self._actor.make_folder.remote())
        try:
            yield there
        finally:
            self._actor.drop.remote(there)  # not waited for: the learner may be dead, or at work still


def is_elsewhere(actor: Any, wait: Callable[[Any], Any], folder: Path) -> bool:
    """The learner does not see files that the trainer writes into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder.absolute() / f"seen-{secrets.token_hex(8)}"
    marker.touch()
    try:
        return not wait(actor.sees.remote(str(marker)))
    finally:
        marker.unlink()
