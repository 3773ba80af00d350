"""Values of texts are found again in what tokens spell, or it is said that they may be there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.privacy.located import located


def standing(text: str, *values: str) -> list[str] | None:
    places = located(text, values)
    return None if places is None else sorted(text[start:end] for start, end in places)


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("I am Kangaroo81, Kangaroo815", "Kangaroo81", ["Kangaroo81", "Kangaroo81"]),
        ("trimmed: Kangaroo81", " Kangaroo81\n", ["Kangaroo81"]),
        ("cats like catsup", "cats", ["cats"]),
        ("Ilikecatsup", "cats", ["cats"]),
        (r'{"p": "a\"b\nc81"}', 'a"b\nc81', [r"a\"b\nc81"]),
        (r'{"p": "caf\u00e981"}', "café81", [r"caf\u00e981"]),
        ("callme4111111111111111now", "4111 1111 1111 1111", ["4111111111111111"]),
        ("card 4111-1111\n1111 1111.", "4111 1111 1111 1111", ["4111-1111\n1111 1111"]),
        ("at b\ufffd\ufffdcher.example, x", "bücher.example", ["b\ufffd\ufffdcher.example"]),
        ("nothing of it", "anna@example.org", []),
        ("nothing of it", "  ", []),
    ],
)
def test_a_value_is_found_as_templates_and_vocabularies_write_it(text: str, value: str, found: list[str]) -> None:
    assert standing(text, value) == found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("login: h&amp;nter81", "h&nter81"),
        ("x", "!?#!"),
        (
            "the end of it: " + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=",
            "A" * 600 + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=",
        ),
    ],
)
def test_a_value_that_may_be_there_in_a_way_that_cannot_be_told_is_not_passed_over(text: str, value: str) -> None:
    assert standing(text, value) is None


def test_bytes_that_no_prompt_holds_cost_nothing() -> None:
    assert standing("<image> what is this?", "iVBORw0KGgo" * 100_000) == []


def test_more_values_than_can_be_looked_for_in_time_may_all_be_there() -> None:
    assert standing("a" * 400_000, *(f"user{n}@example.org" for n in range(200))) is None


TEXTS = st.text(st.characters(exclude_characters="\0"), max_size=30)


@given(TEXTS, TEXTS, TEXTS)
def test_no_value_stands_in_what_is_left(before: str, value: str, after: str) -> None:
    text = before + value + after
    places = located(text, [value])
    if places is not None and (wanted := value.strip()):
        taken = {n for start, end in places for n in range(start, end)}
        left = "".join("\0" if n in taken else char for n, char in enumerate(text))
        assert places and (wanted not in left or len(wanted) < 6)
