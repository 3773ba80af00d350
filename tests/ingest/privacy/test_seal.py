"""A sealed value gives back what was sealed, to its key, as what it was; anything else is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import RecordError
from ingest.privacy.generations import DataKey
from ingest.privacy.seal import associated, seal, unseal

KEY = DataKey("user-a", "1-00000000000000aa", bytes(range(32)))
WHAT = associated("trace/3", KEY)


def refusal(value: bytes, key: DataKey = KEY, what: bytes = WHAT) -> str:
    with pytest.raises(RecordError) as raised:
        unseal(value, key, what)
    return str(raised.value)


@given(st.binary(), st.binary())
def test_what_was_sealed_comes_back(data: bytes, what: bytes) -> None:
    assert unseal(seal(data, KEY, what), KEY, what) == data


def test_a_record_of_megabytes_comes_back() -> None:
    data = b"a long session " * 500_000
    assert unseal(seal(data, KEY, WHAT), KEY, WHAT) == data


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_value_changed_in_any_bit_is_refused(data: bytes, draw: st.DataObject) -> None:
    value = bytearray(seal(data, KEY, WHAT))
    bit = draw.draw(st.integers(0, len(value) * 8 - 1))
    value[bit // 8] ^= 1 << bit % 8
    assert refusal(bytes(value)).startswith("sealed under user-a/1-00000000000000aa: ")


@given(st.integers(0, 40))
def test_a_value_cut_short_is_refused(length: int) -> None:
    value = seal(b"text" * 100, KEY, WHAT)
    assert refusal(value[:length]).startswith("sealed under ")


@pytest.mark.parametrize(
    ("schema", "subject", "generation"),
    [
        ("feedback/2", "user-a", KEY.generation),
        ("trace/3", "user-b", KEY.generation),
        ("trace/3", "user-a", "2-00000000000000aa"),
    ],
)
def test_a_value_opens_only_as_what_it_was(schema: str, subject: str, generation: str) -> None:
    other = associated(schema, DataKey(subject, generation, KEY.secret))
    assert "value, schema or subject is not what was sealed" in refusal(seal(b"text", KEY, WHAT), what=other)


def test_a_value_opens_only_under_its_key() -> None:
    assert "authentication failed" in refusal(seal(b"text", KEY, WHAT), DataKey("user-a", KEY.generation, bytes(32)))


def test_one_record_sealed_twice_is_two_values_and_none_shows_its_text() -> None:
    record = json.dumps({"text": "anna@example.org"}).encode()
    one, other = seal(record, KEY, WHAT), seal(record, KEY, WHAT)
    assert one[1:13] != other[1:13] and b"anna" not in one + other


def test_a_key_does_not_show_its_secret() -> None:
    assert repr(KEY) == "DataKey(subject='user-a', generation='1-00000000000000aa')"
