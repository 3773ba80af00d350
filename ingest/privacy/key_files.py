"""The folder of keys, wherever fsspec reaches: `<shard>/<subject>/<file>`, and every failure as a `StoreError`."""

import contextlib
import hashlib
import secrets
from collections.abc import Iterator

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from infra.errors import ConfigError, StoreError
from ingest.privacy.durable import sync


class KeyFiles:
    """Small files by folder and name under `url`, any fsspec URL or a local path. Its listings must show what was
    written before them, as those of local disks, S3, GCS and Azure do."""

    def __init__(self, url: str) -> None:
        """Raises `ConfigError` for a URL that no installed library serves."""
        self.url = url
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as exc:
            raise ConfigError(f"privacy.keys_url: {url}: {exc}") from exc
        self._is_local = isinstance(self._fs, LocalFileSystem)

    def names(self, folder: str) -> list[str]:
        """The files of a folder; none where it does not exist."""
        with self._border("list", folder):
            try:
                self._fs.invalidate_cache(self._path(folder))  # listings are cached, and other processes write
                return [path.rsplit("/", 1)[-1] for path in self._fs.ls(self._path(folder), detail=False)]
            except FileNotFoundError:
                return []

    def read(self, folder: str, name: str) -> bytes | None:
        """A file's bytes; `None` where there is none."""
        with self._border("read", f"{folder}/{name}"):
            try:
                data: bytes = self._fs.cat_file(f"{self._path(folder)}/{name}")
            except FileNotFoundError:
                return None
            return data

    def put(self, folder: str, name: str, data: bytes) -> None:
        """Write whole or not at all: to a name of its own first, and then to the one that counts."""
        path = f"{self._path(folder)}/{name}"
        part = f"{path}.{secrets.token_hex(8)}.part"
        with self._border("write", f"{folder}/{name}"):
            self._fs.makedirs(self._path(folder), exist_ok=True)
            self._fs.pipe_file(part, data)
            self._sync(part)
            self._fs.mv(part, path)
            self._sync(self._path(folder), self._path(folder).rsplit("/", 1)[0], self._root)

    def remove(self, folder: str, name: str) -> bool:
        """Whether there was such a file."""
        with self._border("remove", f"{folder}/{name}"):
            try:
                self._fs.rm_file(f"{self._path(folder)}/{name}")
            except FileNotFoundError:
                return False
            self._sync(self._path(folder))
            return True

    def folders(self) -> list[str]:
        """Every folder there is a file in."""
        with self._border("list", ""):
            self._fs.invalidate_cache()
            paths = [path.rsplit("/", 2) for path in self._fs.find(self._root)]
        return sorted({subject for _, subject, name in paths if name.endswith((".key", ".part", ".erased"))})

    def _path(self, folder: str) -> str:
        """256 shards, so that no folder of a local disk has an entry for every user."""
        return f"{self._root}/{hashlib.sha256(folder.encode()).hexdigest()[:2]}/{folder}"

    def _sync(self, *paths: str) -> None:
        """Object stores are durable when they answer."""
        if self._is_local:
            for path in paths:
                sync(path)

    @contextlib.contextmanager
    def _border(self, step: str, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # every filesystem has errors of its own, not all of them OSErrors
            raise StoreError(f"keys at {self.url}: could not {step} {what}: {exc or type(exc).__name__}") from exc
