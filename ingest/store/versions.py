"""The weight store: immutable versions in the Hugging Face layout, wherever fsspec reaches.

The order of a publication, and what a crash after each step leaves:

    1. files      under versions/<number>-<digest>/   an unlisted folder; publishing again completes it
    2. signature  model.sig, where there is a key     the same; publishing again signs anew, for its own manifest
    3. manifest   manifest.json in that folder        the version exists: every name, size and digest is known
    4. record     on the `versions` topic             the rollout hears of it (the caller's step; safe to repeat)

The signature is of the manifest's bytes and lies there before it does: no reader ever meets a version whose signature
is still to come.

A version's files are the layout itself or, where its manifest names a base, adapters of that version's weights
(`ingest.store.adapters`). A copy is the layout in either case, those adapters in a folder of their own in it.
"""

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
from pydantic import TypeAdapter, ValidationError

from infra.config import StoreConfig
from infra.errors import SignatureError, StoreError, StoreOutageError
from infra.storage import asked
from ingest.records.events import FileEntry, Version
from ingest.store import adapters
from ingest.store.signing import SIGNATURE, SignatureState, Signed, Signer, Trust, require

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
ADAPTER, MERGED = "adapter", "merged.json"
"""In the copy of a version with a base: the folder of its own files, and what came of them and the base."""
PART = ".part"
_OURS = frozenset({MANIFEST, SIGNATURE, MERGED})  # of a folder that is a version's already
_ENTRIES = TypeAdapter(tuple[FileEntry, ...])
_CHUNK = 1 << 20


class VersionStore:
    """Versions under `url`, any fsspec URL or a local path.

    With a `signer` it signs what it publishes; where a signature `is_required` it gives no version that `trust` does
    not hold to be signed. `copies` is a folder that was fetched into: what it has is read where the store has it no
    more, or does not answer.
    """

    def __init__(
        self,
        url: str,
        signer: Signer | None = None,
        trust: Trust | None = None,
        is_required: bool = False,
        copies: Path | None = None,
    ) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self._signer, self._trust, self._is_required = signer, trust or Trust(), is_required
        self._copies = copies

    @classmethod
    def of(cls, config: StoreConfig, publishes: bool = False, copies: Path | None = None) -> "VersionStore":
        """The store of the configuration, for one who reads it, or who `publishes` too. Raises `ConfigError`."""
        signing = config.signing
        signer = Signer.of(signing) if publishes else None
        return cls(config.url, signer, Trust.of(signing), signing.required, copies)

    def publish(
        self,
        version: int,
        folder: Path,
        parent: Version | None,
        lineage: dict[str, Any],
        metrics: dict[str, float],
        at: float,
        base: Version | None = None,
    ) -> Version:
        """Store the files of `folder` as `version`. Publishing the same content again changes nothing.

        With a `base` they are adapters of that version's weights.

        Raises:
            StoreError: the number is taken by other content, or the store cannot be written.
        """
        files = _entries(folder)
        manifest = Version(
            version=version,
            digest=_digest(files, base.digest if base else None),
            parent=parent.version if parent else None,
            parent_digest=parent.digest if parent else None,
            base=base.version if base else None,
            base_digest=base.digest if base else None,
            files=files,
            lineage=lineage,
            metrics=metrics,
            created_at=at,
        )
        if version in self.versions():
            held = self.read(version)
            if held.digest == manifest.digest:
                return held
            raise StoreError(f"version {version} exists with digest {held.digest[:12]}, got {manifest.digest[:12]}")
        with asked(f"version {version}: not written to {self._root}"):
            target = f"{self._root}/{manifest.folder}"
            self._fs.makedirs(target, exist_ok=True)
            for entry in files:
                self._fs.put_file(str(folder / entry.name), f"{target}/{entry.name}")
            data = manifest.model_dump_json(indent=1, exclude_defaults=True).encode()
            self._sign(manifest, data)
            self._put(f"{target}/{MANIFEST}", data)
        return manifest

    def sign(self, version: int) -> Signed:
        """Sign a version that was published without, or by a key that is being replaced.

        Raises:
            SignatureError: it bears a signature that is not valid, or of a key that is not trusted here.
            StoreError: there is no such version, or the store cannot be written.
        """
        manifest, data = self._manifest(version)
        found = self._trust.look(self._signature(manifest), MANIFEST, data)
        if found.state is SignatureState.INVALID:
            raise SignatureError(f"version {version}: not signed anew: {found.told}")
        with asked(f"version {version}: not signed in {self._root}"):
            self._sign(manifest, data)
        return self.signed(version)

    def signed(self, version: int) -> Signed:
        """What is known of a version's signature, whether or not one is required. Raises `StoreError`."""
        manifest, data = self._manifest(version)
        return self._trust.look(self._signature(manifest), MANIFEST, data)

    def _sign(self, manifest: Version, data: bytes) -> None:
        if self._signer is None:
            return
        digests = {file.name: file.sha256 for file in manifest.files} | {MANIFEST: hashlib.sha256(data).hexdigest()}
        self._put(f"{self._root}/{manifest.folder}/{SIGNATURE}", self._signer.sign(_name(manifest), digests))

    def _signature(self, manifest: Version) -> bytes | None:
        path = f"{self._root}/{manifest.folder}/{SIGNATURE}"
        copied = None if self._copies is None else _own(manifest, self._copies / _name(manifest)) / SIGNATURE
        try:
            with asked(f"{path}: not readable"):
                return bytes(self._fs.cat_file(path))
        except StoreError as exc:
            if copied is not None and copied.exists():
                return copied.read_bytes()
            if isinstance(exc, StoreOutageError):
                raise
            return None

    def _put(self, path: str, data: bytes) -> None:
        """Write whole or not at all: a manifest half written must not look like a version."""
        self._fs.pipe_file(f"{path}{PART}", data)
        self._fs.mv(f"{path}{PART}", path)

    def versions(self) -> list[int]:
        """Numbers of all versions, ascending. Folders that are named otherwise are none of ours."""
        numbers = (path.rsplit("/", 2)[1].partition("-")[0] for path in self._glob(f"*-*/{MANIFEST}"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def has(self, version: int) -> bool:
        """Whether there is such a version, and what it is a change of, as far as the store's manifests tell."""
        try:
            manifest, _ = self._manifest(version)
            return manifest.base is None or self.has(self._base(manifest).version)
        except StoreError:
            return False

    def read(self, version: int) -> Version:
        """The manifest of `version`.

        Raises:
            StoreError: there is no such version, or its manifest does not validate.
            SignatureError: a signature is required, and there is none that is valid.
        """
        manifest, data = self._manifest(version)
        if self._is_required:
            require(version, self._trust.look(self._signature(manifest), MANIFEST, data))
        return manifest

    def _manifest(self, version: int) -> tuple[Version, bytes]:
        """A manifest, and the bytes that say it."""
        where, data = self._written(version)
        try:
            manifest = Version.model_validate_json(data)
        except ValueError as exc:
            raise StoreError(f"version {version}: manifest {where} is unreadable: {exc}") from exc
        if _name(manifest) not in Path(where).parts[-3:]:
            raise StoreError(f"version {version}: manifest {where} is of another version, {manifest.folder}")
        return manifest, data

    def _written(self, version: int) -> tuple[str, bytes]:
        """Where a manifest lies, and its bytes."""
        try:
            found = self._manifests(version)
            if len(found) == 1:
                with asked(f"version {version}: manifest {found[0]} is unreadable"):
                    return found[0], bytes(self._fs.cat_file(found[0]))
            told = f"version {version}: expected one manifest under {self._root}, found {len(found)}"
            failure = StoreError(told)
        except StoreOutageError as exc:
            found, failure = [], exc
        copied = self._copied(version)
        if found or not copied:
            raise failure
        if len(copied) > 1:
            told = f"expected one copy to stand in, found {', '.join(map(str, copied))}"
            raise type(failure)(f"{failure}; {told}") from failure
        logger.warning("%s; this machine's copy is taken", failure)
        return str(copied[0]), copied[0].read_bytes()

    def _copied(self, version: int) -> list[Path]:
        """Manifests of copies."""
        if self._copies is None:
            return []
        folders = [one for one in sorted(self._copies.glob(f"{version:06d}-*")) if one.suffix != PART]
        places = [place / MANIFEST for one in folders for place in (one, one / ADAPTER)]
        return [place for place in places if place.is_file()]

    def _manifests(self, version: int) -> list[str]:
        """Of one version, without a look into the folders of all others."""
        folders = self._glob(f"{version:06d}-*")
        with asked(f"{self._root}/versions: not listed"):
            return [path for one in folders for path in self._fs.ls(one, detail=False) if path.endswith(f"/{MANIFEST}")]

    def _glob(self, what: str) -> list[str]:
        self._fs.invalidate_cache()  # object stores' listings are cached, and other processes publish
        with asked(f"{self._root}/versions: not listed"):
            return list(self._fs.glob(f"{self._root}/versions/{what}"))

    def _base(self, manifest: Version) -> Version:
        """Raises `StoreError` where it is not there, or another than the one that was changed."""
        assert manifest.base is not None and manifest.base_digest is not None
        try:
            base = self.read(manifest.base)
        except StoreError as exc:
            raise type(exc)(f"version {manifest.version}: its base, {exc}") from exc
        if (found := _digest(base.files, base.base_digest)) != manifest.base_digest:  # whatever it says of itself
            raise StoreError(
                f"version {manifest.version}: its base, version {base.version}, must have digest "
                f"{manifest.base_digest[:12]}, got {found[:12]}"
            )
        return base

    def fetch(self, manifest: Version, into: Path) -> Path:
        """A verified local copy of a version, below `into`, in the Hugging Face layout; one already there is verified,
        and copied again only where it is damaged. Of a version with a base, the base's copy is made there first.

        Its manifest and signature lie with its own files: put back below `versions/` of a store that was lost, their
        folder is the version.

        Raises:
            StoreError: a file is missing or its content differs from the manifest, or so it is with a base.
        """
        _require_plain_names(manifest)
        target = into / _name(manifest)
        if target.exists():
            try:
                _verify_copy(manifest, target)
                return target
            except StoreError as exc:
                logger.warning("%s; it is fetched anew", exc)
        base = None if manifest.base is None else self.fetch(self._base(manifest), into)
        part = target.with_suffix(PART)
        shutil.rmtree(part, ignore_errors=True)
        own = _own(manifest, part)
        own.mkdir(parents=True)
        for entry in manifest.files:
            self._get(f"{self._root}/{manifest.folder}/{entry.name}", own / entry.name)
        verify(manifest, own)
        self._get(f"{self._root}/{manifest.folder}/{MANIFEST}", own / MANIFEST)
        if (signature := self._signature(manifest)) is not None:
            (own / SIGNATURE).write_bytes(signature)
        if base is not None:
            adapters.merge(_files(base), own, part)
            (part / MERGED).write_bytes(_ENTRIES.dump_json(_entries(part)))
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
        return target

    def _get(self, source: str, target: Path) -> None:
        with asked(f"{source}: not readable"):
            self._fs.get_file(source, str(target))


def _require_plain_names(manifest: Version) -> None:
    for file in manifest.files:
        if Path(file.name).name != file.name:
            told = f"its files must have names without a folder, got {file.name!r}"
            raise StoreError(f"version {manifest.version}: {told}")


def verify(manifest: Version, folder: Path) -> None:
    """Check every file of `folder` against the manifest.

    Raises:
        StoreError: names the first file that is missing or differs.
    """
    _verify(manifest.version, manifest.files, folder)


def layout(manifest: Version, copy: Path) -> tuple[FileEntry, ...]:
    """The files of a copy's Hugging Face layout. Raises `StoreError` where what was noted of them is unreadable."""
    if manifest.base is None:
        return manifest.files
    try:
        return _ENTRIES.validate_json((copy / MERGED).read_bytes())
    except (OSError, ValidationError) as exc:
        raise StoreError(f"version {manifest.version}: {copy / MERGED} is unreadable: {exc}") from exc


def _verify_copy(manifest: Version, folder: Path) -> None:
    verify(manifest, _own(manifest, folder))
    if manifest.base is not None:
        _verify(manifest.version, layout(manifest, folder), folder)


def _verify(version: int, files: tuple[FileEntry, ...], folder: Path) -> None:
    for expected in files:
        path = folder / expected.name
        if not path.is_file():
            raise StoreError(f"version {version}: {expected.name} is missing from {folder}")
        found = _entry(path)
        if found != expected:
            raise StoreError(
                f"version {version}: {expected.name} must have sha256 {expected.sha256[:12]} and "
                f"{expected.bytes} bytes, got {found.sha256[:12]} and {found.bytes}"
            )


def _name(manifest: Version) -> str:
    """Of a version's folder, in the store and among copies."""
    return manifest.folder.rsplit("/", 1)[1]


def _own(manifest: Version, copy: Path) -> Path:
    """Where in a copy the version's own files lie."""
    return copy if manifest.base is None else copy / ADAPTER


def _entries(folder: Path) -> tuple[FileEntry, ...]:
    return tuple(_entry(path) for path in _files(folder))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name not in _OURS)


def _entry(path: Path) -> FileEntry:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return FileEntry(name=path.name, bytes=path.stat().st_size, sha256=digest.hexdigest())


def _digest(files: tuple[FileEntry, ...], base: str | None) -> str:
    """Of a version with these files, whose base has the digest `base`."""
    lines = [f"{file.sha256}  {file.name}" for file in files] + ([f"{base}  base"] if base else [])
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
