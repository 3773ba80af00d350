"""The lake's contents under users' keys: readable until any of them is erased, in files written before, too."""

from pathlib import Path

import pytest
from intakes import SECRET

from ingest.lake.content import Content, Vault
from ingest.lake.sealing import Keys
from ingest.privacy.keys import KeyStore

WORDS = Content({"reply": "the words of a person"}, (1, 2), (3,), (-0.5,))


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(str(tmp_path), SECRET)


@pytest.fixture
def both(store: KeyStore) -> str:
    """What a message says that two users' records were sealed under."""
    return " ".join(store.key_for(f"user-{name}").name for name in ("anna", "bob"))


def get(store: KeyStore, row: dict[str, object]) -> Content | None:
    return Vault(Keys(store)).get(row["subject"], row["key_generation"], row["content"])  # type: ignore[arg-type]


def test_a_content_is_read_again_with_the_keys_and_is_nothing_without(store: KeyStore, both: str) -> None:
    row = Vault(Keys(store)).put(both, WORDS)
    assert b"words" not in row["content"] and get(store, row) == WORDS


@pytest.mark.parametrize("erased", ["user-anna", "user-bob"])
def test_erasing_any_of_them_erases_what_was_written_before(
    store: KeyStore, both: str, tmp_path: Path, erased: str
) -> None:
    row = Vault(Keys(store)).put(both, WORDS)
    store.erase(erased)
    assert get(KeyStore(str(tmp_path), SECRET), row) is None


def test_what_is_written_of_an_erased_user_holds_nothing(store: KeyStore, both: str, tmp_path: Path) -> None:
    store.erase("user-anna")
    fresh = KeyStore(str(tmp_path), SECRET)
    row = Vault(Keys(fresh)).put(both, WORDS)
    assert row["content"] == b"" and get(fresh, row) is None


def test_what_is_about_nobody_named_stays_readable(store: KeyStore) -> None:
    row = Vault(Keys(store)).put("", WORDS)
    assert row["key_generation"] == "" and get(store, row) == WORDS
