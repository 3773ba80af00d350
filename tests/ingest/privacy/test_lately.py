"""What was found in a text is known again, and the memory is bounded."""

from ingest.privacy.kinds import Kind, Span
from ingest.privacy.lately import Lately
from ingest.privacy.redact import Redactor


def looked_at(lately: Lately, *texts: str) -> list[str]:
    """Those of the texts that had to be looked at; each `@` is a place that is found."""
    looked = []
    for text in texts:

        def look(text: str = text) -> tuple[Span, ...]:
            looked.append(text)
            return found(text)

        assert lately.of(text, look) == found(text)
    return looked


def found(text: str) -> tuple[Span, ...]:
    return tuple(Span(n, n + 1, Kind.EMAIL) for n, char in enumerate(text) if char == "@")


def test_a_text_is_looked_at_once() -> None:
    assert looked_at(Lately(4), "a@", "a@", "b\ud83d", "a@", "b\ud83d") == ["a@", "b\ud83d"]


def test_the_text_longest_unheard_is_forgotten() -> None:
    assert looked_at(Lately(2), "a", "b", "a", "c", "a", "b") == ["a", "b", "c", "b"]


def test_what_was_found_takes_room_too() -> None:
    assert looked_at(Lately(4), "a", "b", "@@", "b", "a", "@@@@@", "b") == ["a", "b", "@@", "a", "@@@@@", "b"]


def test_a_text_is_another_one_under_another_name() -> None:
    redactor = Redactor(Kind, lately=Lately(8))
    assert [bool(redactor.spans("hunter22", name)) for name in ("note", "password", "note")] == [False, True, False]
