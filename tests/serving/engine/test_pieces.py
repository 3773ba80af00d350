"""Cutting questions into waves: every question asked once, prefixes first, no wave longer than it may be."""

from hypothesis import given
from hypothesis import strategies as st

from serving.engine.pieces import Piece, Tokens, warming, waves

BLOCK = 4


def tokens(first: int, num: int) -> Tokens:
    return tuple(range(first, first + num))


def test_a_prompt_is_computed_once_for_all_of_its_continuations() -> None:
    prompt, one, two = tokens(0, 10), (90,), (91, 92)
    assert list(waves([(prompt, one), (prompt, two)], BLOCK, 8)) == [
        (Piece(prompt[:8], 8),),
        (Piece(prompt + one, 3, 0, 10), Piece(prompt + two, 4, 1, 10)),
    ]


def test_a_continuation_goes_on_block_by_block() -> None:
    prompt, said = (1, 2, 3), (91, 92, 93, 94, 95, 96, 97)
    assert list(waves([(prompt, said)], BLOCK, 8)) == [
        (Piece((*prompt, 91), 4, 0, 3, then=92),),
        (Piece((*prompt, 91, 92, 93, 94, 95), 4, 0, 5, then=96),),
        (Piece(prompt + said, 2, 0, 9),),
    ]


def test_a_last_token_that_the_block_before_it_tells_is_not_asked_for_again() -> None:
    assert list(waves([((1, 2, 3), (91, 92))], BLOCK, 8)) == [(Piece((1, 2, 3, 91), 4, 0, 3, then=92),)]


def test_a_long_prompt_is_warmed_a_piece_at_a_time() -> None:
    ends = [(len(piece.token_ids), piece.num_new) for (piece,) in warming(tokens(0, 23), BLOCK, 9)]
    assert ends == [(8, 8), (16, 8), (20, 4)]


def test_the_last_token_of_a_prompt_is_never_taken_from_the_cache() -> None:
    """What follows it is likely or not by its own output, which the cache does not hold."""
    prompt = tokens(0, 8)
    assert list(waves([(prompt, (90,))], BLOCK, 8)) == [
        (Piece(prompt[:4], 4),),
        (Piece(prompt, 4, 0, 8, then=90),),
    ]


def test_prompts_below_a_block_are_asked_at_once_and_together() -> None:
    first, second = Piece((1, 2, 90), 3, 0, 2), Piece((3, 91), 2, 1, 1)
    assert list(waves([((1, 2), (90,)), ((3,), (91,))], BLOCK, 8)) == [(first, second)]


PROMPTS = st.integers(0, 2).flatmap(lambda first: st.integers(1, 30).map(lambda num: tokens(first, num)))
SAID = st.lists(st.integers(90, 99), min_size=1, max_size=12).map(tuple)
QUESTIONS = st.lists(st.tuples(PROMPTS, SAID), max_size=8)


def most_cached(piece: Piece) -> int:
    """What vLLM may find in its cache for a piece, if everything was computed before: whole blocks, not the last."""
    return (len(piece.token_ids) - 1) // BLOCK * BLOCK


@given(QUESTIONS, st.integers(1, 20))
def test_every_token_asked_about_is_computed_once_after_its_prefix_and_within_the_limit(
    questions: list[tuple[Tokens, Tokens]], limit: int
) -> None:
    cached: set[Tokens] = {()}
    answers: list[list[int]] = [[] for _ in questions]
    for wave in waves(questions, BLOCK, limit):
        assert len(wave) == 1 or sum(piece.num_new for piece in wave) <= limit
        for piece in wave:
            known = len(piece.token_ids) - piece.num_new
            assert known % BLOCK == 0
            assert piece.token_ids[:known] in cached
            assert piece.num_new <= max(limit, BLOCK)
            if piece.question is not None:
                assert most_cached(piece) == known < piece.start
                told = piece.token_ids[piece.start :]
                answers[piece.question] += told if piece.then is None else (*told, piece.then)
        cached |= {piece.token_ids for piece in wave}
    assert answers == [list(continuation) for _, continuation in questions]
