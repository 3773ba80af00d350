"""Private values go, everything else stays: texts, requests, tokens, own patterns."""

import re
from collections import defaultdict
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from private_texts import Labelled, Part, texts

from infra.config import PrivacyConfig, PrivateKind
from infra.errors import ConfigError
from ingest.privacy.kinds import Kind
from ingest.privacy.placeholders import PLACEHOLDER, Placeholders
from ingest.privacy.redact import APART, Redactor

EVERYTHING = Redactor(Kind)
SESSION = Placeholders(b"0123456789abcdef", "session")
FILLER = -1


def kinds_in(text: str, redactor: Redactor = EVERYTHING, name: str = "") -> list[tuple[str, str]]:
    return [(text[span.start : span.end], span.kind) for span in redactor.spans(text, name)]


def is_covered(text: Labelled, start: int, end: int) -> bool:
    covered = {n for span in EVERYTHING.spans(text.text) for n in range(span.start, span.end)}
    return all(n in covered for n in range(start, end) if text.text[n].isalnum())


@pytest.mark.parametrize("part", list(Part))
def test_of_every_kind_at_least_98_in_100_labelled_values_are_found_whole(part: Part) -> None:
    found: dict[str, list[bool]] = defaultdict(list)
    for text in texts():
        for label in text.labels if text.part is part else ():
            found[label.kind].append(is_covered(text, label.start, label.end))
    assert {kind: sum(hits) / len(hits) >= 0.98 for kind, hits in found.items()} == dict.fromkeys(found, True)


@pytest.mark.parametrize("part", list(Part))
def test_what_only_looks_private_stays(part: Part) -> None:
    taken = {text.text: kinds_in(text.text) for text in texts() if not text.labels and text.part is part}
    assert {text: found for text, found in taken.items() if found} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mail bob [at] example [dot] com", [("bob [at] example [dot] com", "email")]),
        ("https://x.test/?u=bob%40example.com&n=1", [("bob%40example.com", "email")]),
        ("12025550143 is the id", []),
        ("call 12025550143", [("12025550143", "phone")]),
        ("4111 1111 1111 1112 fails Luhn", []),
        ("GB82 WEST 1234 5698 7654 33 fails mod 97", []),
        ("000-12-3456 was never issued", []),
        ("version 1.2.3.4, host 10.2.3.4", [("10.2.3.4", "ip")]),
        ("https://ci:${TOKEN}@git.test/x", []),
        ("password = getpass('Password: ')", []),
        ("--password hunter22 --host db", [("hunter22", "secret")]),
        ('{\\"password\\": \\"hunter22\\"}', [("hunter22", "secret")]),
        ("ftp://bob:tiger9@ftp.example.com/x", [("tiger9", "secret")]),
        ("{'password': \"it's4me\"}", [("it's4me", "secret")]),
        ("密钥hf_abcdefghijklmnopqrstuvwxyzABCDEFGH", [("hf_abcdefghijklmnopqrstuvwxyzABCDEFGH", "secret")]),
        ("DB_PASS=hunter22, PASS: test_login2", [("hunter22", "secret")]),
        ("Cookie: lang=de; sid=8f7a6b5c4d3e2f1a", [("8f7a6b5c4d3e2f1a", "secret")]),
        ("line\\nbob@example.com", [("bob@example.com", "email")]),
        ("İ password=hunter22", [("hunter22", "secret")]),
    ],
)
def test_a_value_is_found_where_its_surroundings_say_so(text: str, found: list[tuple[str, str]]) -> None:
    assert kinds_in(text) == found


def test_a_value_that_was_announced_is_taken_wherever_it_stands_again() -> None:
    text = "password: Kangaroo81\nI typed Kangaroo81 twice, not Kangaroo815"
    assert kinds_in(text) == [("Kangaroo81", "secret"), ("Kangaroo81", "secret")]


@pytest.mark.parametrize("form", ["token={}", 'token="{}"', "curl -H 'Authorization: Bearer {}'"])
def test_a_long_secret_is_taken_to_its_end(form: str) -> None:
    secret = "a1B2c3D4e5F6" * 100
    assert kinds_in(form.format(secret)) == [(secret, "secret")]


def test_the_name_of_a_field_announces_its_value() -> None:
    assert kinds_in("hunter22", name="db_password") == [("hunter22", "secret")]
    assert kinds_in("2025550143", name="homePhone") == [("2025550143", "phone")]
    assert kinds_in("bearer", name="token_type") == kinds_in("2025550143", name="created") == []


def test_overlapping_places_become_one() -> None:
    redactor = Redactor(Kind, {"mailbox": r"box-\d+ <\w+@[\w.]+>"})
    assert kinds_in("to box-7 <bob@example.com>!", redactor) == [("box-7 <bob@example.com>", "mailbox")]


def test_kinds_that_were_not_asked_for_stay() -> None:
    redactor = Redactor.of(PrivacyConfig(redact=("email",)))
    assert kinds_in("bob@example.com, 4111 1111 1111 1111", redactor) == [("bob@example.com", "email")]
    assert kinds_in("bob@example.com", Redactor.of(PrivacyConfig(redact=()))) == []


def test_the_configuration_knows_the_kinds_that_there_are() -> None:
    assert get_args(PrivateKind) == tuple(Kind)


def test_an_own_pattern_takes_its_own_kind() -> None:
    redactor = Redactor.of(PrivacyConfig(patterns={"badge": r"\bB-\d{4}\b"}))
    text, counts = redactor.redact_text("bädge B-1234, not B-12345", SESSION)
    assert re.fullmatch(r"bädge <BADGE_[0-9a-f]{6}>, not B-12345", text) and counts == {"badge": 1}


def test_half_a_surrogate_pair_hinders_nothing() -> None:
    redactor = Redactor(Kind, {"badge": "B-[0-9]{4}"})
    text, counts = redactor.redact_text("\ud83d B-1234 \udc00@example.com password: \ud83dx1y2z3", SESSION)
    assert text.startswith("\ud83d <BADGE_") and counts == {"badge": 1, "secret": 1}


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("(", "must be a regular expression that RE2 knows"),
        (r"(?<=a)b", "must be a regular expression that RE2 knows"),
        (r"(a)\1", "must be a regular expression that RE2 knows"),
        (r"\d*", "must not match the empty text"),
        ("a" * 1001, "at most 1000 characters, got 1001"),
    ],
)
def test_an_own_pattern_that_cannot_be_used_is_refused_by_name(pattern: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=rf"^privacy\.patterns\.badge: {re.escape(rule)}") as raised:
        Redactor.of(PrivacyConfig(patterns={"badge": pattern}))
    assert "got" in str(raised.value)


def test_what_is_left_is_looked_at_until_nothing_is_found_in_it() -> None:
    redactor = Redactor((), {"first": "^a"})
    once, counts = redactor.redact_text("aaab", SESSION)
    assert (once, counts) == (SESSION.of("first", "a") * 3 + "b", {"first": 3})
    assert redactor.redact_text(once, SESSION) == (once, {})
    assert redactor.redact_tokens([1, 2, 3], ["ax", "ab", "c"], FILLER) == ((FILLER, FILLER, 3), (0, 1))


def test_a_placeholder_is_no_text() -> None:
    assert kinds_in("ASK <EMAIL_0a1b2c>", Redactor((), {"shout": "[A-Z]{3,}"})) == [("ASK", "shout")]


def test_counts_are_by_kind() -> None:
    _, counts = EVERYTHING.redact_text("a@example.com, b@example.com, 62.4.5.6", SESSION)
    assert counts == {"email": 2, "ip": 1}


def messages_of(content: Any) -> dict[str, Any]:
    return {"model": "policy", "messages": [{"role": "user", "content": content}], "temperature": 0.5, "seed": None}


def test_every_text_of_a_request_is_redacted_and_nothing_else() -> None:
    parts = [
        {"type": "text", "text": "I am a@example.com"},
        {"type": "image_url", "image_url": {"url": "https://x.test/a"}},
    ]
    redacted, counts = EVERYTHING.redact_json(messages_of(parts), SESSION)
    mark = SESSION.of("email", "a@example.com")
    assert redacted == messages_of([{"type": "text", "text": f"I am {mark}"}, parts[1]]) and counts == {"email": 1}


def test_arguments_of_a_tool_call_stay_json_to_the_character() -> None:
    arguments = '{ "to":"line\\nbob@example.com", "n": 4111111111111111,"password" : "hunter22", "x": "\\u00e9"}'
    redacted, counts = EVERYTHING.redact_json({"function": {"name": "send", "arguments": arguments}}, SESSION)
    mail, secret = SESSION.of("email", "bob@example.com"), SESSION.of("secret", "hunter22")
    expected = arguments.replace("bob@example.com", mail).replace("hunter22", secret)
    assert redacted == {"function": {"name": "send", "arguments": expected}} and counts == {"email": 1, "secret": 1}


def test_data_is_dropped_and_its_type_stays() -> None:
    redacted, counts = EVERYTHING.redact_json({"url": "data:image/png;base64,iVBORw0KGgo="}, SESSION)
    assert re.fullmatch(r"data:image/png;base64,<DATA_[0-9a-f]{6}>", redacted["url"]) and counts == {"data": 1}
    kept = Redactor(set(Kind) - {Kind.DATA}).redact_json({"url": "data:image/png;base64,iVBORw0KGgo="}, SESSION)
    assert kept == ({"url": "data:image/png;base64,iVBORw0KGgo="}, {})


def test_every_token_with_a_part_in_a_private_value_gives_way_and_positions_stay() -> None:
    pieces = ["Ask", " b", "ob@", "exam", "ple.com", ", ", "please"]
    ids, altered = EVERYTHING.redact_tokens(range(7), pieces, FILLER)
    assert (ids, altered) == ((0, FILLER, FILLER, FILLER, FILLER, 5, 6), (1, 2, 3, 4))
    assert EVERYTHING.redact_tokens(ids, pieces, FILLER) == (ids, ())


def test_a_piece_that_is_no_text_parts_it() -> None:
    pieces = ["password:", " hunter", APART, "4111 1111", APART, " 1111 1111"]
    assert EVERYTHING.redact_tokens(range(6), pieces, FILLER)[1] == (1,)


def test_values_of_texts_give_way_in_tokens_and_all_does_where_one_may_be_hidden() -> None:
    pieces = ["I am", " Kang", "aroo81", ", p&amp;ss81"]
    assert EVERYTHING.redact_tokens(range(4), pieces, FILLER, ["Kangaroo81"])[1] == (1, 2)
    assert EVERYTHING.redact_tokens([7, FILLER, 7, 7], pieces, FILLER, ["p&ss81"]) == ((FILLER,) * 4, (0, 2, 3))


def test_pieces_that_do_not_fit_the_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="one piece for each token, got 1 for 2"):
        EVERYTHING.redact_tokens([1, 2], ["a"], FILLER)


SNIPPETS = st.sampled_from([text.text for text in texts()]) | st.text(max_size=40)
JOINTS = st.sampled_from(
    ["", " ", "\n", ",", "@", "-", "<", ">", ":", "1", '"', "\\n", "<EMAIL_0a1b2c>", "password: ", "call "]
)


@st.composite
def mixed_texts(draw: st.DrawFn) -> str:
    """Labelled texts and noise, cut anywhere and joined by what makes trouble."""
    pieces = []
    for whole in draw(st.lists(SNIPPETS, min_size=1, max_size=4)):
        start, end = sorted((draw(st.integers(0, len(whole))), draw(st.integers(0, len(whole)))))
        pieces += [whole if draw(st.booleans()) else whole[start:end], draw(JOINTS)]
    return "".join(pieces)


JSON = st.recursive(
    mixed_texts() | st.integers() | st.none() | st.booleans(),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(
            st.sampled_from(["content", "password", "phone", "arguments", "a@example.com"]), parts, max_size=3
        )
    ),
    max_leaves=6,
)


@given(mixed_texts())
def test_a_redacted_text_stays_as_it_is(text: str) -> None:
    once, _ = EVERYTHING.redact_text(text, SESSION)
    assert EVERYTHING.redact_text(once, SESSION) == (once, {})


@given(mixed_texts())
def test_what_lies_between_private_places_stays(text: str) -> None:
    spans = EVERYTHING.spans(text)
    assert all(first.end <= second.start for first, second in pairwise(spans))
    redacted, counts = EVERYTHING.redact_text(text, SESSION)
    if Kind.DATA not in counts:
        edges = [0, *(edge for span in spans for edge in (span.start, span.end)), len(text)]
        between = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
        marks = [SESSION.of(span.kind, text[span.start : span.end]) for span in spans]
        assert redacted == "".join(piece for pair in zip(between, [*marks, ""], strict=True) for piece in pair)


@given(mixed_texts())
def test_no_value_that_was_taken_for_a_secret_stands_in_what_is_left(text: str) -> None:
    values = {text[span.start : span.end] for span in EVERYTHING.spans(text) if span.kind == Kind.SECRET}
    left = PLACEHOLDER.split(EVERYTHING.redact_text(text, SESSION)[0])
    survivors = [
        v for v in values if len(v) >= 6 and any(re.search(rf"(?<!\w){re.escape(v)}(?!\w)", part) for part in left)
    ]
    assert not survivors


def shape(value: Any) -> Any:
    match value:
        case dict():
            return {key: shape(part) for key, part in value.items()}
        case list():
            return [shape(part) for part in value]
        case str():
            return str
    return value


@given(JSON)
def test_a_redacted_request_has_its_shape_and_stays_as_it_is(value: Any) -> None:
    once, _ = EVERYTHING.redact_json(value, SESSION)
    assert shape(once) == shape(value)
    assert EVERYTHING.redact_json(once, SESSION) == (once, {})


@given(mixed_texts(), st.lists(st.integers(1, 7), min_size=1, max_size=8))
def test_redacted_tokens_stay_as_they_are_and_hold_nothing_private(text: str, sizes: list[int]) -> None:
    pieces, at = [], 0
    while at < len(text):
        pieces.append(text[at : at + sizes[len(pieces) % len(sizes)]])
        at += len(pieces[-1])
    ids, altered = EVERYTHING.redact_tokens(range(len(pieces)), pieces, FILLER)
    assert [n for n, token in enumerate(ids) if token == FILLER] == list(altered)
    assert EVERYTHING.redact_tokens(ids, pieces, FILLER) == (ids, ())
    private = {n for span in EVERYTHING.spans(text) for n in range(span.start, span.end)}
    starts = [sum(map(len, pieces[:n])) for n in range(len(pieces))]
    kept = {n for i, start in enumerate(starts) if i not in altered for n in range(start, start + len(pieces[i]))}
    assert not private & kept
