"""A secret, stores of keys on every kind of filesystem there is here, and a clock that the test moves."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from clock import Clock

from ingest.privacy.keys import KeyStore
from ingest.privacy.secret import Secret

SECRET = Secret.parse("0f" * 32 + "\n" + "1e" * 32, "test")


@pytest.fixture
def secret() -> Secret:
    return SECRET


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "keys") if request.param == "local" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def make_store(url: str, secret: Secret, clock: Clock) -> Callable[[], KeyStore]:
    """A store over the same files with caches of its own, as another process has."""
    return lambda: KeyStore(url, secret, cache_s=30.0, clock=clock)


@pytest.fixture
def store(make_store: Callable[[], KeyStore]) -> KeyStore:
    return make_store()
