"""Ids in headers: what was named is found again, whatever the ids are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.records.named import IDS_HEADER, feedback_header, ids_header, ids_in, trace_ids_in

KEY = "0123456789abcdef"
ONE, OTHER = "00112233445566778899aabbccddeeff", "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
names = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.from_regex(r":[A-Za-z0-9_-]{22}", fullmatch=True),
)


def test_a_trace_is_named_by_what_follows_the_key_of_its_session() -> None:
    headers = {IDS_HEADER: ids_header([f"{KEY}-8f00", f"{KEY}-8f00.1"])}
    assert headers == {"ids": "8f00,8f00.1"}
    assert ids_in(headers) == ("8f00", "8f00.1")
    assert trace_ids_in(KEY, headers) == (f"{KEY}-8f00", f"{KEY}-8f00.1")


def test_a_message_without_the_header_names_nothing() -> None:
    assert ids_in({"schema": "trace/3"}) == trace_ids_in(KEY, {IDS_HEADER: ""}) == ()


def test_ids_of_32_hex_digits_are_their_bytes_and_those_in_a_row_are_one() -> None:
    assert ids_header([f"{KEY}-{ONE}"]) == feedback_header(ONE) == ":ABEiM0RVZneImaq7zN3u_w"
    together = ids_header([f"{KEY}-{name}" for name in (ONE, OTHER, f"{ONE}.1", OTHER, OTHER.upper())])
    apart = [":ABEiM0RVZneImaq7zN3u__Dx8vP09fb3-Pn6-_z9_v8", f"{ONE}.1", ":8PHy8_T19vf4-fr7_P3-_w", OTHER.upper()]
    assert together == ",".join(apart)


@pytest.mark.parametrize("spelling", [f"{ONE},{OTHER}", ":ABEiM0RVZneImaq7zN3u__Dx8vP09fb3-Pn6-_z9_v8"])
def test_ids_are_read_in_the_spelling_they_had_before_and_in_the_one_they_have(spelling: str) -> None:
    assert trace_ids_in(KEY, {IDS_HEADER: spelling}) == (f"{KEY}-{ONE}", f"{KEY}-{OTHER}")


@pytest.mark.parametrize("odd", [":", ":A", ":ABEiM0RVZneImaq7zN3u", ":\xe9\xe9\xe9\xe9"])
def test_what_only_looks_packed_is_an_id_as_it_stands(odd: str) -> None:
    assert ids_in({IDS_HEADER: f"{odd},8f00"}) == (odd, "8f00")


@given(st.lists(names))
def test_every_trace_that_was_named_is_found_again(names: list[str]) -> None:
    trace_ids = tuple(f"{KEY}-{name}" for name in names)
    assert trace_ids_in(KEY, {IDS_HEADER: ids_header(trace_ids)}) == trace_ids


@given(names)
def test_feedback_that_was_named_is_found_again_as_one_id_in_plain_ascii(feedback_id: str) -> None:
    header = feedback_header(feedback_id)
    assert ids_in({IDS_HEADER: header}) == (feedback_id,)
    assert header.isascii()
