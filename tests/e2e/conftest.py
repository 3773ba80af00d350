from collections.abc import Iterator
from pathlib import Path

import pytest
from system import System

MODEL = Path(__file__).parents[2] / ".onstream" / "model"


@pytest.fixture(scope="module")
def system(after_outages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all tests of the module: two real engines, a real broker, Ray, and every stage."""
    assert (MODEL / "config.json").is_file(), f"{MODEL} is not prepared: run `make test`, which prepares it"
    held = System(tmp_path_factory.mktemp("system"), MODEL)
    try:
        held.start()
        yield held
    finally:
        held.stop()
