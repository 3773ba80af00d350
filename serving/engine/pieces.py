"""How likelihood questions are cut into pieces that an engine finishes soon, with every prefix computed once.

vLLM shares prefixes of requests by its cache of whole blocks, never takes a request's last token from there, and gives
log-probabilities of those prompt tokens only that it computed for the request itself. So the whole blocks of a prompt
are computed first, and then each continuation goes on block by block. A piece that ends where a block ends finds in the
cache at most what comes before that block, however often it was asked before; what it is asked for, it computes:

    prompt   ────────────────┬────────────────┬──────           continuation  ════════════          blocks ┬
             warm ...........| warm ..........|
             ask .............................|──────═════════|═       and how likely the token after its end is
             ask .............................................|══

Pieces that were finished stay in the cache: what is begun again after users went first goes on where it was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """One request to the engine: `token_ids`, of which it has to compute the last `num_new`.

    It answers `question` (its number; none: it only fills the cache) with the log-probabilities of `token_ids[start:]`
    and of the token `then` after them, if there is one.
    """

    token_ids: Tokens
    num_new: int
    question: int | None = None
    start: int = 0
    then: int | None = None


def waves(questions: Sequence[tuple[Tokens, Tokens]], block: int, limit: int) -> Iterator[tuple[Piece, ...]]:
    """Pieces to run together, one such wave after the other. The answers to a question join in their order.

    Args:
        questions: prompt and continuation of each.
        block: tokens in a block of the prefix cache.
        limit: tokens that may be computed in one wave; one piece may be a block all the same.
    """
    wave: list[Piece] = []
    for prompt, numbers in _by_prompt(questions).items():
        for piece in (*_warming(prompt, block, limit), *_asking(prompt, numbers, questions, block)):
            is_full = sum(other.num_new for other in wave) + piece.num_new > limit
            if wave and (is_full or _follows(piece, wave)):
                yield tuple(wave)
                wave = []
            wave.append(piece)
    if wave:
        yield tuple(wave)


def warming(prompt: Tokens, block: int, limit: int) -> Iterator[tuple[Piece, ...]]:
    """Waves of one piece each that bring the whole blocks of `prompt` into the cache."""
    return ((piece,) for piece in _warming(prompt, block, limit))


def _by_prompt(questions: Sequence[tuple[Tokens, Tokens]]) -> dict[Tokens, list[int]]:
    found: dict[Tokens, list[int]] = {}
    for number, (prompt, _) in enumerate(questions):
        found.setdefault(prompt, []).append(number)
    return found


def _cached(prompt: Tokens, block: int) -> int:
    """Tokens in whole blocks before the last token, whose output says how likely the continuation's first is."""
    return (len(prompt) - 1) // block * block


def _warming(prompt: Tokens, block: int, limit: int) -> list[Piece]:
    end, step = _cached(prompt, block), max(1, limit // block) * block
    return [Piece(prompt[: min(at + step, end)], min(step, end - at)) for at in range(0, end, step)]


def _asking(
    prompt: Tokens, numbers: Sequence[int], questions: Sequence[tuple[Tokens, Tokens]], block: int
) -> list[Piece]:
    """The next block of every continuation, then the one after it of those that are longer, and so on."""
    rows = [_blocks(prompt, questions[number][1], number, block) for number in numbers]
    return [piece for level in zip_longest(*rows) for piece in level if piece is not None]


def _blocks(prompt: Tokens, continuation: Tokens, number: int, block: int) -> list[Piece]:
    whole, begin, start = prompt + continuation, _cached(prompt, block), len(prompt)
    pieces = []
    while start < len(whole):
        end = min(begin + block, len(whole))
        then = whole[end] if end < len(whole) else None
        pieces.append(Piece(whole[:end], end - begin, number, start, then))
        begin, start = end, end + 1
    return pieces


def _follows(piece: Piece, wave: Sequence[Piece]) -> bool:
    """`piece` needs what one of `wave` brings into the cache."""
    if wave[-1].question is None:
        return piece.token_ids[: len(wave[-1].token_ids)] == wave[-1].token_ids
    return any(other.question == piece.question for other in wave)
