from collections.abc import Iterator
from pathlib import Path

import pytest
from system import System

MODEL = Path(__file__).parents[2] / ".onstream" / "model"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[System]:
    """One system for all tests of the module: two real engines, a real broker, Ray, and every stage.

    A module's `TRAINER`, where it has one, is what its trainer's configuration has otherwise.
    """
    assert (MODEL / "config.json").is_file(), f"{MODEL} is not prepared: run `make test`, which prepares it"
    held = System(tmp_path_factory.mktemp("system"), MODEL, getattr(request.module, "TRAINER", {}))
    try:
        held.start()
        yield held
    finally:
        held.stop()
