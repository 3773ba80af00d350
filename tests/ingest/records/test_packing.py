"""Numbers stay what they were while they are packed, and packed sequences behave as the tuples they stand for."""

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ingest.records.packing import Logprobs, TokenIds

IDS = st.lists(st.integers(0, 2**32 - 1), max_size=12).map(tuple)
FEW = st.lists(st.integers(0, 2), max_size=12).map(tuple)
ADAPTER = TypeAdapter(TokenIds)


@given(IDS)
def test_a_string_gives_back_what_was_packed(ids: tuple[int, ...]) -> None:
    again = TokenIds.parse(TokenIds(ids).text())
    assert tuple(again) == ids
    assert len(again) == len(ids)
    assert TokenIds.parse(again.text()) == again  # whichever of its forms it holds


@given(IDS)
def test_words_without_planes_are_read_as_the_first_schemas_wrote_them(ids: tuple[int, ...]) -> None:
    old = base64.b64encode(struct.pack(f"<{len(ids)}I", *ids)).decode()
    assert tuple(TokenIds.parse(old)) == ids


@given(st.lists(st.floats(width=32, allow_nan=False)).map(tuple))
def test_floats_of_32_bits_are_exact(numbers: tuple[float, ...]) -> None:
    assert tuple(Logprobs.parse(Logprobs(numbers).text())) == numbers


@given(st.lists(st.tuples(IDS, st.booleans()), max_size=4))
def test_parts_are_joined_whichever_of_their_forms_they_hold(given: list[tuple[tuple[int, ...], bool]]) -> None:
    parts = [TokenIds.parse(TokenIds(ids).text()) for ids, _ in given]
    for part, (ids, is_looked_at) in zip(parts, given, strict=True):
        assert not is_looked_at or tuple(part) == ids
    whole = tuple(number for ids, _ in given for number in ids)
    assert TokenIds.joined(parts).text() == TokenIds(whole).text()
    assert tuple(TokenIds.joined(parts)) == whole


@given(FEW, FEW, st.slices(12))
def test_a_packed_sequence_is_cut_joined_and_compared_as_a_tuple(
    one: tuple[int, ...], other: tuple[int, ...], part: slice
) -> None:
    packed = TokenIds.parse(TokenIds(one).text())
    assert tuple(packed[part]) == one[part]
    assert tuple(packed + TokenIds(other)) == one + other == tuple(packed + other) == tuple(one + TokenIds(other))
    assert (packed == other) is (one == other)
    assert [packed[n] for n in range(-len(one), len(one))] == [one[n] for n in range(-len(one), len(one))]


@given(FEW, FEW)
def test_common_numbers_are_counted_as_a_loop_counts_them(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    num = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert TokenIds(one).num_common(TokenIds(other)) == num


@pytest.mark.parametrize("wrong", [(-1,), (2**32,), (0.5,), "~AAA", "~AAAA", "~ä", 7, None, {"a": 1}])
def test_what_is_no_numbers_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(wrong)


def test_numbers_are_told_to_people_as_numbers() -> None:
    assert repr(TokenIds((1, 2))) == "TokenIds([1, 2])"
    assert TokenIds((1,)) != (1, 2)
    assert TokenIds() != "none"
