"""Every subject's data keys: made on first use, found by name, and erased for good.

What the files of a subject's folder mean is in `generations`. A key is made in this order:

    1. list     the subject's folder             a live generation is the key: nothing is made
    2. put      <number>-<id>.key, whole         a crash leaves a key that the next one seals under
    3. list     again, which is 1: the smallest live generation is the key, whoever made it

and erased in this one:

    1. list     the highest number there is
    2. put      <number>.erased, whole           from here on no process that looks finds the keys
    3. remove   every key of that number and below, finished or not; a crash before leaves void files, which
                erasing again removes, and so do `rewrap` and whoever makes the subject's next key

Whoever is between 1 and 3 of making a key while its subject is erased sees the tombstone in 3, removes what it made,
and makes one of the next number. A process that had the key before may use it for `cache_s` and a read's time more:
what it seals then is erased from birth.

A key that is neither there nor erased is an error and not an erasure: it may be a folder that is not mounted, and
what is erased stays so, in the fates and in the lake.
"""

import secrets
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from cachetools import TTLCache

from infra.config import Config
from infra.errors import ConfigError, RecordError, StoreError
from ingest.privacy import generations
from ingest.privacy.generations import DataKey, Generations
from ingest.privacy.key_files import KeyFiles
from ingest.privacy.secret import Secret, load

_MARKERS = "_secrets"  # no subject begins so
_MARK = b"onstream"
_MAX_CACHED = 50_000  # keys in memory: 30 MB
_MAX_ROUNDS = 8  # each but the last was undone by an erasure that came between

Name = TypeVar("Name")
Value = TypeVar("Value")


class KeyStore:
    """The keys under `url`, any fsspec URL, wrapped by `secret`. Safe for use from several threads.

    Everything but a cached answer waits for the store; every method raises `StoreError` where it does not answer,
    and `ConfigError` where its keys were made with another secret.
    """

    def __init__(
        self, url: str, secret: Secret, cache_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`cache_s`: how long a key is used without asking again; `clock` counts seconds."""
        self._files, self._secret = KeyFiles(url), secret
        self._lock = threading.Lock()  # the three caches
        self._making = threading.Lock()  # threads agree at once on a new key
        self._sealing: TTLCache[str, DataKey] = TTLCache(_MAX_CACHED, cache_s, clock)
        self._opening: TTLCache[tuple[str, str], DataKey] = TTLCache(_MAX_CACHED, cache_s, clock)
        self._gone: TTLCache[tuple[str, str], bool] = TTLCache(_MAX_CACHED, cache_s, clock)
        self._is_verified = False

    @classmethod
    def of(cls, config: Config) -> "KeyStore":
        """As configured. Raises `ConfigError`."""
        privacy = config.privacy
        return cls(privacy.keys_url, load(privacy, config.run_dir), privacy.key_cache_s)

    def verify(self) -> None:
        """Check that the keys here are this secret's; the first to come leaves the mark that the others check.

        Raises:
            ConfigError: they are another secret's, or some are still wrapped under one that is no longer given.
        """
        mine, found = self._secret.fingerprint, self._marks()
        is_first = not found
        if is_first:
            self._files.put(_MARKERS, mine, generations.wrap(_MARK, mine, self._secret))
            found = self._marks()
        if others := sorted(found - {mine}):
            if is_first:  # two came first: whoever is right must not find the other's mark
                self._files.remove(_MARKERS, mine)
            raise ConfigError(f"keys at {self._files.url}: made with secret {', '.join(others)}, got secret {mine}")
        try:
            generations.unwrap(self._files.read(_MARKERS, mine) or b"", mine, self._secret)
        except RecordError as exc:
            rule = "the secret must hold the line they were wrapped under until `onstream keys rewrap` is through"
            raise ConfigError(f"keys at {self._files.url}: {rule}") from exc
        self._is_verified = True

    def _marks(self) -> set[str]:
        return {name for name in self._files.names(_MARKERS) if not name.endswith(".part")}

    def key_for(self, subject: str) -> DataKey:
        """The key to seal under now, made where there is none.

        Raises:
            RecordError: this cannot be a subject, or its key file is damaged.
        """
        if (key := self._cached(self._sealing, subject)) is not None:
            return key
        generations.check_subject(subject)
        with self._making:
            if (key := self._cached(self._sealing, subject)) is not None:
                return key
            key = self._settled(subject)
            with self._lock:
                self._sealing[subject] = self._opening[subject, key.generation] = key
            return key

    def _settled(self, subject: str) -> DataKey:
        self._require_verified()
        for _ in range(_MAX_ROUNDS):
            held = self._look(subject)
            self._sweep(subject, held)
            if not held.live:
                secret = secrets.token_bytes(generations.KEY_BYTES)
                self._put(DataKey(subject, held.next(secrets.token_hex(8)), secret))
            elif (key := self._read(subject, held.live[0])) is not None:
                return key
        raise StoreError(f"keys at {self._files.url}: {subject}: a new key was gone again, {_MAX_ROUNDS} times")

    def find(self, subject: str, generation: str) -> DataKey | None:
        """The key of that name; `None` when it was erased.

        Raises:
            RecordError: there never was such a key, or its file is lost or damaged.
        """
        name = (subject, generation)
        if (key := self._cached(self._opening, name)) is not None:
            return key
        if self._cached(self._gone, name):
            return None
        key = self._found(*generations.split(f"{subject}/{generation}"))
        with self._lock:
            if key is None:
                self._gone[name] = True
            else:
                self._opening[name] = key
        return key

    def _found(self, subject: str, generation: str) -> DataKey | None:
        self._require_verified()
        held = self._look(subject)
        if held.covers(generation):
            return None
        if (key := self._read(subject, generation)) is not None:
            return key
        if self._look(subject).covers(generation):
            return None
        if self._secret.fingerprint not in self._files.names(_MARKERS):
            raise StoreError(f"keys at {self._files.url}: nothing is there any more")
        raise RecordError(f"key {subject}/{generation}: neither kept nor erased at {self._files.url}: it was lost")

    def erase(self, subject: str) -> int:
        """Remove all keys of a subject, for good. How many keys this call removed: 0 when there were none.

        When it raises, it may have been done in part, and must be called again.
        """
        generations.check_subject(subject)
        self._require_verified()
        held = self._look(subject)
        if held.newest > held.erased:
            self._files.put(subject, generations.tombstone(held.newest), b"")
            held = self._look(subject)
        removed = self._sweep(subject, held)
        with self._lock:
            self._sealing.pop(subject, None)
            for name in [name for name in self._opening if name[0] == subject]:
                del self._opening[name]
        return removed

    def rewrap(self, told: Callable[[int, int], None] = lambda done, total: None) -> int:
        """Wrap every key anew under the secret's first wrapping key, and remove void files. How many were rewrapped.
        `told` hears how many subjects are done, of how many.

        Every process must have the new line of the secret before this begins, and the old one until it is through;
        then the old line can go, and with it the use of every copy of the key folder that was made before. May be
        called again after a crash. The mark goes last: `verify` fails while the old line is still needed.
        """
        self._require_verified()
        subjects = [folder for folder in self._files.folders() if folder != _MARKERS]
        done = 0
        for number, subject in enumerate(subjects, 1):
            done += self._rewrap(subject)
            told(number, len(subjects))
        mine = self._secret.fingerprint
        self._files.put(_MARKERS, mine, generations.wrap(_MARK, mine, self._secret))
        return done

    def _rewrap(self, subject: str) -> int:
        held, done = self._look(subject), 0
        for generation in held.live:
            file, name = generations.file_of(generation), f"{subject}/{generation}"
            wrapped = self._files.read(subject, file)
            if wrapped is None:
                continue
            secret, is_newest = generations.unwrap(wrapped, name, self._secret)
            if not is_newest:
                self._put(DataKey(subject, generation, secret))
                done += 1
        self._sweep(subject, self._look(subject))  # an erasure between read and put: what was put is void
        return done

    def _require_verified(self) -> None:
        if not self._is_verified:
            self.verify()

    def _look(self, subject: str) -> Generations:
        return generations.look(self._files.names(subject))

    def _read(self, subject: str, generation: str) -> DataKey | None:
        wrapped = self._files.read(subject, generations.file_of(generation))
        if wrapped is None:
            return None
        secret, _ = generations.unwrap(wrapped, f"{subject}/{generation}", self._secret)
        return DataKey(subject, generation, secret)

    def _put(self, key: DataKey) -> None:
        wrapped = generations.wrap(key.secret, key.name, self._secret)
        self._files.put(key.subject, generations.file_of(key.generation), wrapped)

    def _sweep(self, subject: str, held: Generations) -> int:
        """Remove what a tombstone covers."""
        return sum(self._files.remove(subject, name) for name in held.void)

    def _cached(self, cache: "TTLCache[Name, Value]", name: Name) -> Value | None:
        with self._lock:
            return cache.get(name)
