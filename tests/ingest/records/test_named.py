"""Ids in headers: what was named is found again, whatever the ids are."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.records.named import IDS_HEADER, feedback_header, ids_header, ids_in, trace_ids_in

KEY = "0123456789abcdef"


def test_a_trace_is_named_by_what_follows_the_key_of_its_session() -> None:
    headers = {IDS_HEADER: ids_header([f"{KEY}-8f00", f"{KEY}-8f00.1"])}
    assert headers == {"ids": "8f00,8f00.1"}
    assert ids_in(headers) == ("8f00", "8f00.1")
    assert trace_ids_in(KEY, headers) == (f"{KEY}-8f00", f"{KEY}-8f00.1")


def test_a_message_without_the_header_names_nothing() -> None:
    assert ids_in({"schema": "trace/3"}) == trace_ids_in(KEY, {IDS_HEADER: ""}) == ()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
def test_every_trace_that_was_named_is_found_again(names: list[str]) -> None:
    trace_ids = tuple(f"{KEY}-{name}" for name in names)
    assert trace_ids_in(KEY, {IDS_HEADER: ids_header(trace_ids)}) == trace_ids


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_feedback_that_was_named_is_found_again_as_one_id_in_plain_ascii(feedback_id: str) -> None:
    header = feedback_header(feedback_id)
    assert ids_in({IDS_HEADER: header}) == (feedback_id,)
    assert header.isascii()
