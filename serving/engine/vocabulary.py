"""What each token of a vocabulary adds to a text: looked up once for each token."""

from collections.abc import Sequence
from typing import Any, Protocol

from ingest.privacy.redact import APART


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that this needs."""

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        """The text of tokens."""


class Vocabulary:
    """Callable: token ids -> what each of them spells on its own.

    Decoded alone, a token keeps the space it begins with only in byte-level vocabularies; one that has a part of a
    character spells the replacement character. Most of what redaction looks for is ASCII, and neither hides that. A
    special token, as one that ends a message, is no text: it spells `APART`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, token_ids: Sequence[int]) -> list[str]:
        known = self._known
        try:
            return list(map(known.__getitem__, token_ids))
        except KeyError:
            for token in set(token_ids) - known.keys():
                known[token] = self._spelled(token)
        return list(map(known.__getitem__, token_ids))

    def _spelled(self, token: int) -> str:
        spelled = self._tokenizer.decode([token], skip_special_tokens=False)
        is_special = bool(spelled) and not self._tokenizer.decode([token], skip_special_tokens=True)
        return APART if is_special else spelled
