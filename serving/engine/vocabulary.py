"""What each token of a vocabulary adds to a text: looked up once for each token."""

from collections.abc import Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that this needs."""

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        """The text of tokens."""


class Vocabulary:
    """Callable: token ids -> what each of them spells on its own.

    Decoded alone, a token keeps the space it begins with only in byte-level vocabularies; one that has a part of a
    character spells the replacement character. Neither hides what redaction looks for: that is made of whole ASCII.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, token_ids: Sequence[int]) -> list[str]:
        known = self._known
        for token in set(token_ids) - known.keys():
            known[token] = self._tokenizer.decode([token], skip_special_tokens=False)
        return [known[token] for token in token_ids]
