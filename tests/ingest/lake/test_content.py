"""Contents: packed, sealed, and erased."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import LakeError
from ingest.lake.content import Content, NoSeal, Vault, pack, unpack

IDS = st.lists(st.integers(0, 2**32 - 1), max_size=20).map(tuple)
PROBS = st.lists(st.floats(width=32, allow_nan=False), max_size=20).map(tuple)


class Keys:
    """A sealer whose keys can be taken away. Its seal is a mark that other bytes do not have."""

    def __init__(self) -> None:
        self.erased: set[str] = set()

    def seal(self, subject: str, data: bytes) -> tuple[str, bytes]:
        return "3-ab", subject.encode() + data[::-1]

    def unseal(self, subject: str, generation: str, data: bytes) -> bytes | None:
        assert generation == "3-ab"
        return None if subject in self.erased else data.removeprefix(subject.encode())[::-1]


@given(st.text(), IDS, IDS, PROBS)
def test_a_content_comes_out_as_it_went_in(
    text: str, context: tuple[int, ...], reply: tuple[int, ...], probs: tuple[float, ...]
) -> None:
    content = Content({"reply": text, "messages": [{"role": text}], "followup": None}, context, reply, probs)
    assert unpack(pack(content)) == content


def test_a_text_that_is_no_unicode_survives() -> None:
    content = Content({"reply": "\ud800"})
    assert unpack(pack(content)) == content


def test_numbers_lie_by_significance() -> None:
    planes = pack(Content({}, (0x04030201, 0x14131211)))[-8:]
    assert planes == bytes([0x01, 0x11, 0x02, 0x12, 0x03, 0x13, 0x04, 0x14])


def test_who_holds_no_key_gets_nothing() -> None:
    keys = Keys()
    vault = Vault(keys)
    row = vault.put("alice", Content({"comment": "mine"}))
    assert (row["subject"], row["key_generation"]) == ("alice", "3-ab")
    assert vault.get("alice", "3-ab", row["content"]) == Content({"comment": "mine"})
    keys.erased.add("alice")
    assert vault.get("alice", "3-ab", row["content"]) is None


@pytest.mark.parametrize("data", [b"", b"no content", struct.pack("<I", 5)])
def test_damaged_bytes_are_told_with_whose_they_are(data: bytes) -> None:
    with pytest.raises(LakeError, match="content of subject 'bob': not readable"):
        Vault(NoSeal()).get("bob", "", data)
