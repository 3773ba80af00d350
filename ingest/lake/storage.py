"""Files under one URL, wherever fsspec reaches, with the one promise that the lake stands on: `create`.

`create` makes a file whole or not at all, and only where none of that name is, even with several writers:

    local disk   written and synced beside its place, then linked to its name: a link never replaces
    S3, GCS      a conditional put (fsspec's `mode="create"`; s3fs and gcsfs send it as one condition of the request)
    elsewhere    fsspec looks, then writes: right for one writer at a time, and only for one

Where a put fails, or its answer was lost and it was sent again, the file that is there tells whose it is.
"""

import uuid
from pathlib import Path
from typing import Any

from infra.errors import ConfigError, LakeError
from ingest.lake.disk import PART, Disk, folder_of


class Storage:
    """Files below `url`, any fsspec URL or a local path. Paths are relative to it. Every failure is a `LakeError`."""

    def __init__(self, url: str) -> None:
        """Raises `ConfigError` for a URL that no installed library serves."""
        folder = folder_of(url)
        self.is_local = folder is not None
        self._fs: Any  # a `Disk`, or one of fsspec's
        self._fs, self.root = _reach(url) if folder is None else (Disk(), folder)

    def put(self, path: str, data: bytes) -> None:
        """Write a file that nobody refers to yet. On a local disk it is synced; a crash may leave half of it."""
        try:
            self._fs.makedirs(self.full(path).rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(self.full(path), data)
        except OSError as exc:
            raise LakeError(f"lake: {self.full(path)}: not written: {exc}") from exc

    def create(self, path: str, data: bytes) -> bool:
        """Make a file, whole; false where there is another of that name already, which stays as it is."""
        full = self.full(path)
        try:
            self._fs.makedirs(full.rpartition("/")[0], exist_ok=True)
            if self.is_local:
                return bool(self._fs.link_file(full, data))
            self._fs.pipe_file(full, data, mode="create")
        except OSError as exc:  # s3fs tells a condition that was not met so, too
            held = None if self.is_local else self.read(path)
            if held is None:
                raise LakeError(f"lake: {full}: not created: {exc}") from exc
            return held == data
        return True

    def replace(self, path: str, data: bytes) -> None:
        """Write a file whole, over one of the same name."""
        if not self.is_local:
            self.put(path, data)  # object stores show a file whole or not at all
            return
        part = f"{path}.{uuid.uuid4().hex}{PART}"
        self.put(part, data)
        try:
            Path(self.full(part)).replace(self.full(path))
        except OSError as exc:
            raise LakeError(f"lake: {self.full(path)}: not replaced: {exc}") from exc

    def read(self, path: str) -> bytes | None:
        """A file's bytes, or none where there is no such file."""
        try:
            return bytes(self._fs.cat_file(self.full(path)))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise LakeError(f"lake: {self.full(path)}: not readable: {exc}") from exc

    def names(self, folder: str) -> list[str]:
        """Names of the files right below a folder; none where it does not exist."""
        try:
            self._fs.invalidate_cache()  # listings are cached, and other processes write
            return [path.rpartition("/")[2] for path in self._fs.ls(self.full(folder), detail=False)]
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise LakeError(f"lake: {self.full(folder)}: not readable: {exc}") from exc

    def everything(self) -> list[str]:
        """Paths of all files."""
        try:
            self._fs.invalidate_cache()
            return [path.removeprefix(f"{self.root}/") for path in self._fs.find(self.root)]
        except OSError as exc:
            raise LakeError(f"lake: {self.root}: not readable: {exc}") from exc

    def remove(self, path: str) -> None:
        """Delete a file; one that is not there is as good as deleted."""
        try:
            self._fs.rm_file(self.full(path))
        except FileNotFoundError:
            return
        except OSError as exc:
            raise LakeError(f"lake: {self.full(path)}: not deleted: {exc}") from exc

    def full(self, path: str) -> str:
        """The path as the file system knows it."""
        return f"{self.root}/{path}"


def _reach(url: str) -> tuple[Any, str]:
    """A file system elsewhere, and the path in it that `url` names. Raises `ConfigError`."""
    import fsspec  # type: ignore[import-untyped]  # takes long, and a lake on this machine does not need it

    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as exc:
        raise ConfigError(f"ingest.lake.url: {url}: {exc}") from exc
    return fs, root
