"""What each token spells, and which are no text."""

from collections.abc import Sequence
from typing import Any

from ingest.privacy.redact import APART
from serving.engine.vocabulary import Vocabulary


class Letters:
    """Token 1 is `a`, 2 `b` and so on; 0 ends a message, 99 is nothing."""

    def __init__(self) -> None:
        self.num_decoded = 0

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        self.num_decoded += 1
        (token,) = token_ids
        if token == 0:
            return "" if options["skip_special_tokens"] else "<|end|>"
        return "" if token == 99 else chr(96 + token)


def test_a_special_token_is_no_text() -> None:
    assert Vocabulary(Letters())([1, 0, 99, 2]) == ["a", APART, "", "b"]


def test_a_token_is_looked_up_once() -> None:
    letters = Letters()
    pieces = Vocabulary(letters)
    pieces([1, 2])
    num = letters.num_decoded
    assert pieces([2, 1, 2]) == ["b", "a", "b"] and letters.num_decoded == num
