"""What processes of the tests of keys do: at module level, where a spawned process finds it."""

import itertools
import os
import signal
from collections.abc import Callable
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

from infra.config import PrivacyConfig
from ingest.privacy.keys import KeyStore
from ingest.privacy.seal import seal
from ingest.privacy.secret import Secret, load

SECRET = Secret.parse("0f" * 32 + "\n" + "1e" * 32, "test")
USER = "user-0a1b"
STEPS = ("makedirs", "pipe_file", "mv", "rm_file")


def seal_some(url: str, barrier: Barrier, found: "Queue[tuple[str, bytes]]") -> None:
    store = KeyStore(url, SECRET)
    store.verify()
    barrier.wait()
    for _ in range(20):
        key = store.key_for(USER)
        found.put((key.generation, seal(b"text", key, b"")))


def make_key(store: KeyStore) -> None:
    store.key_for(USER)


def erase_key(store: KeyStore) -> None:
    store.erase(USER)


def killed_before(step: int, url: str, work: Callable[[KeyStore], None]) -> None:
    """Do `work`; before the `step`-th change of the filesystem, die."""
    store, done = KeyStore(url, SECRET), itertools.count()
    files = store._files._fs

    def change(really: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if next(done) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return really(*args, **kwargs)

    for name in STEPS:
        setattr(files, name, partial(change, getattr(files, name)))
    work(store)


def load_secret(run_dir: str, barrier: Barrier, found: "Queue[str]") -> None:
    barrier.wait()
    found.put(load(PrivacyConfig(), run_dir).fingerprint)
