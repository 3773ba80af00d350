"""The versions on an engine's own disk: what it can serve at once, without the store.

A version is fetched once: sizes and digests verified, weights finite, and the tokenizer the one that this engine was
started with, which a swap of weights does not replace. From then on this process takes it as it lies,
so that going back to the version before costs no more than the swap. What serves, and what the rollout wants held, is
never evicted, nor is the base of those that are adapters.
"""

import contextlib
import logging
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.errors import StoreError
from infra.files import replace_text
from ingest.records.events import Version
from ingest.store.versions import PART, VersionStore, layout

logger = logging.getLogger(__name__)

_VOCABULARY = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")

Copy = tuple[Version, Path]
"""A version's manifest, and the folder that holds its verified files."""


class Cache:
    """An engine's copies below `folder`: the `keep` newest, and those that are needed. Safe in several threads."""

    def __init__(self, store: VersionStore, folder: Path, keep: int, serving: Version) -> None:
        """`serving` was fetched and verified just now."""
        self._store, self._folder, self._keep, self._first = store, folder, keep, serving.version
        self._fetching = threading.Lock()
        self._known = {serving.version: (serving, folder / serving.folder.rsplit("/", 1)[1])}
        self._words = _words(*self._known[serving.version])
        self._wanted: frozenset[int] = frozenset()

    def held(self) -> tuple[int, ...]:
        """Versions that can be served without the store, ascending."""
        return tuple(sorted(number for number in tuple(self._known) if self.copy(number)))

    def copy(self, version: int) -> Copy | None:
        """A version that this process has verified, if it still lies there."""
        known = self._known.get(version)
        return known if known is not None and known[1].exists() else None

    def fetch(self, version: int) -> Copy:
        """A version's verified copy: at once if it is held, else from the store.

        Raises:
            StoreError: it cannot be fetched or verified, has another tokenizer, or holds weights that are not finite.
        """
        if (held := self.copy(version)) is not None:
            return held
        with self._fetching:
            if (held := self.copy(version)) is not None:
                return held
            manifest = self._store.read(version)
            folder = self._store.fetch(manifest, self._folder)
            self._require_same_tokenizer(version, _words(manifest, folder))
            check_finite(folder, version)
            self._known[version] = (manifest, folder)
            return manifest, folder

    def _require_same_tokenizer(self, version: int, words: Mapping[str, str]) -> None:
        """Raises `StoreError` where a token id may mean another word than in what this engine began with."""
        for name in sorted(words.keys() | self._words.keys()):
            if words.get(name) != self._words.get(name):
                raise StoreError(
                    f"version {version}: its {name} must be that of version {self._first}, whose tokenizer this "
                    f"engine serves with; a swap replaces weights alone"
                )

    def want(self, versions: Iterable[int]) -> None:
        """Keep these from now on."""
        self._wanted = frozenset(versions)

    def fetch_wanted(self) -> None:
        """Fetch those of them that are missing. What cannot be fetched is logged, and not held."""
        for version in sorted(self._wanted):
            try:
                self.fetch(version)
            except StoreError as exc:
                logger.warning("version %d is not held ready: %s", version, exc)

    def evict(self, serving: int) -> None:
        """Keep the newest folders, what serves, and what is wanted. Left to the next time while one is fetched."""
        if not self._fetching.acquire(blocking=False):
            return
        try:
            folders = sorted(self._folder.glob("*-*"), key=lambda path: path.stat().st_mtime, reverse=True)
            asked = {serving, *self._wanted}
            bases = {self._known[number][0].base for number in asked & self._known.keys()}
            needed = {f"{number:06d}" for number in asked | bases if number is not None}
            for folder in folders[self._keep :]:
                if folder.name.partition("-")[0] not in needed:
                    _remove(folder)
        finally:
            self._fetching.release()

    # -- which version served last

    def remember(self, version: int) -> None:
        """Note the version served last, for a start without the broker."""
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_text(self._folder / "serving", str(version))


def _remove(folder: Path) -> None:
    """A kill leaves no part of a copy under the copy's name: it would be refused for ever."""
    part = folder.with_suffix(PART)
    if folder != part:
        shutil.rmtree(part, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.rename(part)
    shutil.rmtree(part, ignore_errors=True)


def remembered(folder: Path) -> int | None:
    """The version served last, if the engine of this cache ever served."""
    note = folder / "serving"
    return int(note.read_text()) if note.exists() else None


def _words(manifest: Version, copy: Path) -> dict[str, str]:
    """The digests of a copy's files that say which word a token id means."""
    return {file.name: file.sha256 for file in layout(manifest, copy) if file.name in _VOCABULARY}


def check_finite(folder: Path, version: int) -> None:
    """Read every weight once.

    Raises:
        StoreError: names the first tensor with a NaN or an infinity, or the first file that holds no tensors.
    """
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                    if not _is_finite(file.get_tensor(name)):
                        raise StoreError(f"version {version}: {name} holds a NaN or an infinity")
        except SafetensorError as exc:
            raise StoreError(f"version {version}: {path.name} is no safetensors file: {exc}") from exc


def _is_finite(tensor: Any) -> bool:
    """Whether no element is a NaN or an infinity. The least and the greatest tell, in a thirtieth of the time."""
    import torch

    if tensor.numel() == 0:
        return True
    if tensor.is_floating_point() and tensor.element_size() == 1:
        tensor = tensor.half()  # torch compares no numbers of eight bits
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())
