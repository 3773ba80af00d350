import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask

from trainer.learner.attention import Blocks, Runs, Seen, runs
from trainer.learner.packing import Sample, Span, Tree


def tree(*sequences: tuple[int, ...]) -> Tree:
    ends = [len(ids) for ids in sequences]
    return Tree.of([Sample(ids, (Span(end - 1, end, (0.0,), 1.0),)) for ids, end in zip(sequences, ends, strict=True)])


def masked(until_T: np.ndarray, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """By the definition of who sees whom: the place at i sees that at j iff j <= i < until[j]."""
    place = np.arange(len(until_T))
    mask_TT = torch.from_numpy((place[None] <= place[:, None]) & (place[:, None] < until_T[None]))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask_TT[None, None], scale=0.3, enable_gqa=True)


def drawn(num: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, heads, num, 16, requires_grad=True) for heads in (4, 2, 2)]


def with_gradients(attend: Seen, given: list[torch.Tensor]) -> list[torch.Tensor]:
    out = attend(*given, 0.3)
    weights = torch.linspace(-1.0, 1.0, out.numel()).reshape(out.shape)
    return [out, *torch.autograd.grad((out * weights).sum(), given)]


def test_runs_are_as_drawn_by_hand() -> None:
    """1 2 branches into 3 4 and 5, of which the latter goes on as 6 and as 7; then 8 9 by itself."""
    until_T = np.concatenate([tree((1, 2, 3, 4), (1, 2, 5, 6), (1, 2, 5, 7)).until_T, [9, 9]])
    found = [(run.start, run.end, run.before_P.tolist()) for run in runs(until_T)]
    assert found == [(0, 4, []), (4, 6, [0, 1]), (6, 7, [0, 1, 4]), (7, 9, [])]


def test_a_run_that_branched_off_is_cut_and_sees_what_came_before_it_of_its_own() -> None:
    until_T = tree((1,) * 3 + (2,) * 5, (1,) * 3 + (3,) * 5).until_T
    found = [(run.start, run.end, run.before_P.tolist()) for run in runs(until_T, max_branch=2)]
    assert found[0] == (0, 8, [])
    assert found[1:] == [(8, 10, [0, 1, 2]), (10, 12, [0, 1, 2, 8, 9]), (12, 13, [0, 1, 2, 8, 9, 10, 11])]


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=9).map(tuple), min_size=1, max_size=8))
def test_attention_by_runs_is_attention_by_the_mask_forward_and_backward(sequences: list[tuple[int, ...]]) -> None:
    until_T = tree(*sorted(sequences)).until_T
    given_ = drawn(len(until_T))
    found = with_gradients(Runs(until_T, "cpu", max_branch=2), given_)
    expected = with_gradients(lambda q, k, v, _: masked(until_T, q, k, v), given_)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, expected, strict=True))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_attention_by_blocks_is_attention_by_runs() -> None:
    """As a GPU has it, here without compilation and backward pass, which PyTorch has not on a CPU."""
    until_T = tree((1,) * 200 + (2,) * 30, (1,) * 200 + (3,) * 40, (4,) * 50).until_T
    given_ = [one.detach() for one in drawn(len(until_T))]
    blocks, pieces = (kind(until_T, "cpu")(*given_, 0.3) for kind in (Blocks, Runs))
    assert torch.allclose(blocks, pieces, atol=1e-5)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 300)), min_size=1, max_size=6),
    st.integers(1, 300),
)
def test_blocks_are_those_that_a_mask_of_all_places_has(branches: list[tuple[int, int]], shared: int) -> None:
    """Some share a beginning of two lengths, some do not."""
    beginnings = ((), (9,) * shared, (9,) * (shared // 2) + (8,))
    until_T = tree(*sorted((*beginnings[of], *(number,) * num) for number, (of, num) in enumerate(branches))).until_T
    until = torch.from_numpy(until_T)
    whole = create_block_mask(
        lambda _row, _head, place, of: (of <= place) & (place < until[of]), None, None, len(until), len(until), "cpu"
    )
    ours = Blocks(until_T, "cpu").mask
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(ours, name), getattr(whole, name)), name
    for counted, listed in (("kv_num_blocks", "kv_indices"), ("full_kv_num_blocks", "full_kv_indices")):
        for row, num in enumerate(getattr(whole, counted)[0, 0].tolist()):
            one, other = (getattr(mask, listed)[0, 0, row, :num] for mask in (ours, whole))
            assert torch.equal(one, other), listed
