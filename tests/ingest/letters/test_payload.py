"""What a letter shows of its payload, to everyone and to who asks for the content."""

import json

import pytest

from ingest.letters import payload
from ingest.records import codec

SECRET = "my number is 0171"


@pytest.mark.parametrize(
    "value",
    [
        json.dumps({"comment": SECRET, "request": {SECRET: [SECRET]}, "list": [SECRET]}).encode(),
        json.dumps([SECRET]).encode(),
        json.dumps(SECRET).encode(),
        SECRET.encode(),
        SECRET.encode() + b"\xff",
        b'{"comment": "' + SECRET.encode(),
    ],
)
def test_the_form_of_a_payload_says_nothing_that_users_typed(value: bytes) -> None:
    told = "\n".join(payload.form(value))
    assert "0171" not in told
    assert SECRET.encode().hex(" ") not in told
    assert f"{len(value)} bytes" in told


def test_the_form_names_fields_with_their_types_and_sizes_and_ids_as_they_are() -> None:
    value = json.dumps({"trace_id": "abc-1", "text": "four", "at": 1.5, "is": True, "no": None, "of": {"a": 1}})
    assert list(payload.form(value.encode()))[1:] == [
        "  trace_id: abc-1",
        "  text: text of 4 characters",
        "  at: a number",
        "  is: a boolean",
        "  no: null",
        "  of: an object of 1 fields",
    ]


def test_the_content_of_json_is_itself() -> None:
    value = {"comment": SECRET, "of": [1, {"a": None}]}
    assert json.loads("\n".join(payload.content(json.dumps(value).encode()))) == value


def test_a_compressed_payload_is_shown_as_what_it_unfolds_to_and_a_damaged_one_as_it_lies() -> None:
    value = b'{"tenant":"acme","comment":"' + b"secret " * 30 + b'"}'
    packed = codec.packed(value)
    assert packed != value
    assert (list(payload.form(packed)), list(payload.content(packed))) == (
        list(payload.form(value)),
        list(payload.content(value)),
    )
    told, *rows = payload.content(packed[:20])
    assert told.startswith("20 bytes, a compressed record cannot be unfolded") and "28 b5 2f fd" in rows[0]


def test_the_content_of_what_is_no_text_is_its_first_bytes_in_hexadecimal() -> None:
    first, row, *_, last = payload.content(b"abc\xff" + bytes(300))
    assert first == "304 bytes, no text: byte 3 is no UTF-8"
    assert row.startswith("000000  61 62 63 ff 00")
    assert row.endswith(" abc.............")
    assert last == "and 48 bytes more"


@pytest.mark.parametrize("value", [b"", b"[" * 100_000, b"1" * 10_000])
def test_no_payload_is_too_odd_to_be_shown(value: bytes) -> None:
    assert list(payload.form(value))
    assert list(payload.content(value))
