"""An object store as fsspec has them, for several processes: `objects:///folder`. It renames nothing.

Whoever imports this knows the protocol; so does a learner's worker, by `KnowingActor`.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import fsspec

from trainer.workers.actors import LearnerActor


class ObjectStore(fsspec.AbstractFileSystem):
    """Files appear whole, when an upload ends."""

    protocol = "objects"
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix("objects://").rstrip("/")

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        root = Path(self._strip_protocol(path))
        if not root.exists():
            raise FileNotFoundError(path)
        found = [
            {"name": str(one), "type": "directory" if one.is_dir() else "file", "size": one.stat().st_size}
            for one in sorted(root.iterdir() if root.is_dir() else [root])
            if one.is_file() or any(below.is_file() for below in one.rglob("*"))
        ]
        return found if detail else [one["name"] for one in found]

    def cat_file(self, path: str, *_: Any, **__: Any) -> bytes:
        return Path(self._strip_protocol(path)).read_bytes()

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        target = Path(self._strip_protocol(rpath))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(lpath, f"{target}~")
        Path(f"{target}~").rename(target)

    def get_file(self, rpath: str, lpath: str, **_: Any) -> None:
        """Fails one reader of a folder beside which there is `<its name>.away`."""
        source = Path(self._strip_protocol(rpath))
        with contextlib.suppress(FileNotFoundError):
            source.parent.with_name(f"{source.parent.name}.away").unlink()
            raise OSError("does not answer")
        shutil.copyfile(source, lpath)

    def rm(self, path: str, recursive: bool = False, **_: Any) -> None:
        root = Path(self._strip_protocol(path))
        shutil.rmtree(root) if root.is_dir() else root.unlink()

    def mv(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("an object store renames nothing")


fsspec.register_implementation("objects", ObjectStore, clobber=True)


class KnowingActor(LearnerActor):
    """Its class is imported with this module."""
