"""A folder of files wherever fsspec reaches, for one writer.

A file is there whole or not at all: on a disk it is written beside its place, made durable and renamed; an object store
has a file when its upload is complete, and renames nothing.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from infra.errors import ConfigError, OnstreamError, StoreError, StoreOutageError
from infra.files import sync

Place = Path | str
"""A folder of this machine, or an fsspec URL."""


class Folder:
    """The files of `place`. Names are relative to it, with `/`; every failure is a `StoreError`, and a
    `StoreOutageError` but for what is not there."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._fs: Any
        try:
            self._fs, root = fsspec.core.url_to_fs(str(place))
        except (ValueError, ImportError) as exc:
            raise ConfigError(f"{place}: not an fsspec URL that can be used here: {exc}") from exc
        self._root: str = str(root).rstrip("/")
        self.is_local = isinstance(self._fs, LocalFileSystem)

    @property
    def path(self) -> Path:
        """Where a folder of this machine is."""
        assert self.is_local, f"{self.place} is no folder of this machine"
        return Path(self._root)

    def under(self, name: str) -> "Folder":
        """A folder in this one."""
        return Folder(self.path / name if self.is_local else f"{str(self.place).rstrip('/')}/{name}")

    def make(self) -> None:
        """On a disk: be there, durably. An object store's folders are their files' names."""
        if self.is_local:
            self.path.mkdir(parents=True, exist_ok=True)
            sync(self.path.parent)

    def names(self) -> list[str]:
        """What is in it, files and folders; nothing where there is no such folder."""
        self._fs.invalidate_cache()  # object stores' listings are cached, and others write here
        with self._asked("", "not listed"):
            try:
                found = self._fs.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
        return sorted(name for path in found if (name := str(path).rstrip("/").rsplit("/", 1)[1]))

    def files(self) -> list[str]:
        """Names of all files in it and below."""
        self._fs.invalidate_cache()
        with self._asked("", "not listed"):
            return sorted(str(path)[len(self._root) + 1 :] for path in self._fs.find(self._root))

    def read(self, name: str) -> bytes | None:
        """A file's content; `None` where there is no such file."""
        with self._asked(name, "not readable"):
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Give a file new content: a reader sees the old or the new, never a part. Durable on return."""
        with self.writing(name) as path:
            path.write_bytes(data)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Where to write a file; it has its name, durable, after the block and only if that raised nothing."""
        with self._told(name, "not written"):
            if self.is_local:
                target = self.path / name
                part = target.with_name(f"{target.name}.part")
                target.parent.mkdir(parents=True, exist_ok=True)
                yield part
                sync(part)
                part.replace(target)
                sync(target.parent)
                return
            with _scratch() as path:
                yield path
                with self._asked(name, "not written"):
                    self._fs.put_file(str(path), f"{self._root}/{name}")

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """A file of this machine with the content of one; an object store's is a copy, for the length of the block."""
        with self._told(name, "not readable"):
            if self.is_local:
                yield self.path / name
                return
            with _scratch() as path:
                with self._asked(name, "not readable"):
                    self._fs.get_file(f"{self._root}/{name}", str(path))
                yield path

    @contextmanager
    def _told(self, name: str, what: str) -> Iterator[None]:
        """Around what others do with a file: their own errors are their own."""
        try:
            yield
        except StoreError:
            raise
        except OSError as exc:
            raise _failure(f"{self.place}/{name}: {what}", exc) from exc

    def _asked(self, name: str, what: str) -> contextlib.AbstractContextManager[None]:
        return asked(f"{self.place}/{name}: {what}")

    def send(self, source: Path) -> None:
        """Copy a folder of this machine here."""
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            with self.writing(path.relative_to(source).as_posix()) as target:
                shutil.copyfile(path, target)

    def fetch(self, target: Path) -> None:
        """Copy all files into a folder of this machine."""
        for name in self.files():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with self.reading(name) as path:
                shutil.copyfile(path, target / name)

    def delete(self, name: str) -> None:
        """A file, or a folder and all below it; what is not there is deleted already."""
        with self._asked(name, "not deleted"), contextlib.suppress(FileNotFoundError):
            self._fs.rm(f"{self._root}/{name}", recursive=True)


@contextmanager
def asked(what: str) -> Iterator[None]:
    """Around calls of fsspec: stores' libraries raise errors of their own kinds, and here they are `StoreError`s."""
    try:
        yield
    except OnstreamError:
        raise
    except Exception as exc:  # theirs have no class in common
        raise _failure(what, exc) from exc


def _failure(what: str, exc: Exception) -> StoreError:
    kind = StoreError if isinstance(exc, FileNotFoundError) else StoreOutageError
    return kind(f"{what}: {exc}")


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="onstream-") as folder:
        yield Path(folder) / "file"
