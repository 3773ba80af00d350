"""How often a prompt was asked: within a batch, before it, and by whom."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.advantages.repeats import Asked, Seen, num_alike

BASE = 0x0123456789ABCDEF


def asked(*sketches: int | None, tenant: str = "t") -> list[Asked]:
    return [Asked(tenant, "" if sketch is None else f"{sketch:016x}") for sketch in sketches]


def flipped(num: int) -> int:
    """`BASE` with so many of its bits the other way."""
    return BASE ^ ((1 << num) - 1)


def test_alike_are_prompts_up_to_the_similarity_and_no_further() -> None:
    """0.75 of the shingles in common: 32 * 0.25 = 8 bits."""
    assert num_alike(asked(BASE, flipped(8)), Seen(), 0.75) == [2, 2]
    assert num_alike(asked(BASE, flipped(9)), Seen(), 0.75) == [1, 1]


def test_a_prompt_asked_by_another_tenant_or_without_a_sketch_is_like_no_other() -> None:
    assert num_alike([*asked(BASE), *asked(BASE, tenant="u")], Seen(), 0.7) == [1, 1]
    assert num_alike(asked(None, None, BASE), Seen(), 0.7) == [1, 1, 1]


def test_what_trained_before_is_counted_within_the_window_alone() -> None:
    seen = Seen().after(asked(BASE, BASE, 0), window=2)
    assert num_alike(asked(BASE), seen, 0.7) == [2]
    assert num_alike(asked(BASE, tenant="u"), seen, 0.7) == [1]
    assert num_alike(asked(BASE), Seen().after(asked(BASE), window=0), 0.7) == [1]


def test_memory_is_bounded_for_each_tenant_by_itself() -> None:
    seen = Seen()
    for _ in range(50):
        seen = seen.after([*asked(BASE, 0, None), *asked(1, tenant="u")], window=7)
    assert {tenant: len(kept) for tenant, kept in seen.sketches.items()} == {"t": 7, "u": 7}


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.9])
@given(st.lists(st.tuples(st.sampled_from([0, BASE, 2**64 - 1, BASE << 3 & (2**64 - 1)]), st.integers(0, 12))))
def test_turns_count_no_more_together_than_there_are_prompts_no_two_of_which_are_alike(
    similarity: float, turns: list[tuple[int, int]]
) -> None:
    rng = random.Random(1)
    prompts = [base ^ sum(1 << bit for bit in rng.sample(range(64), num)) for base, num in turns]
    counts = [1 / num for num in num_alike(asked(*prompts), Seen(), similarity)]
    assert sum(counts) <= max_unlike(prompts, int((1 - similarity) * 32 + 1e-9)) + 1e-9


def max_unlike(prompts: list[int], distance: int) -> int:
    """The most of them of which no two are alike."""
    if not prompts:
        return 0
    first, rest = prompts[0], prompts[1:]
    apart = [other for other in rest if (first ^ other).bit_count() > distance]
    with_first = 1 + max_unlike(apart, distance)
    return with_first if len(apart) == len(rest) else max(with_first, max_unlike(rest, distance))
