"""Places of messages, written and read."""

import pytest

from ingest.log.places import Place
from ingest.log.protocol import Message


def test_a_place_is_read_as_it_was_written() -> None:
    place = Place.of(Message("feedback.ingest.dlq", 3, 17, "key", b"", {}))
    assert (str(place), Place.parse(str(place))) == ("feedback.ingest.dlq/3@17", place)


@pytest.mark.parametrize(
    "text", ["", "traces", "traces/0", "traces@1", "traces/x@1", "traces/0@-1", "a/b/0@1", "t/0@1 "]
)
def test_what_is_no_place_is_refused_with_the_form_of_one(text: str) -> None:
    with pytest.raises(ValueError, match="a place is topic/partition@offset, like traces/0@17, got "):
        Place.parse(text)
