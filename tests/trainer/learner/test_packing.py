import pytest

from trainer.learner.packing import Sample, Span, Tree, num_shared, rows, trees


def sample(*token_ids: int) -> Sample:
    last = len(token_ids)
    return Sample(token_ids, (Span(last - 1, last, (-0.5,), 1.0),))


def run(token: int, length: int, prompt: int = 0) -> Sample:
    """A prompt of as many tokens 1, then a run of one token."""
    return sample(*(1,) * prompt, *(token,) * length)


def test_a_tree_is_as_drawn_by_hand() -> None:
    """1 2 branches into 3 4 and 5, of which the latter goes on as 6 and as 7."""
    tree = Tree.of([sample(1, 2, 3, 4), sample(1, 2, 5, 6), sample(1, 2, 5, 7)])
    assert tree.token_ids_T.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert tree.positions_T.tolist() == [0, 1, 2, 3, 2, 3, 3]
    assert tree.until_T.tolist() == [7, 7, 4, 4, 7, 6, 7]
    assert [places.tolist() for places in tree.places] == [[0, 1, 2, 3], [0, 1, 4, 5], [0, 1, 4, 6]]


def test_a_sample_that_goes_on_where_another_ends_adds_only_its_rest() -> None:
    tree = Tree.of([sample(1, 2), sample(1, 2), sample(1, 2, 3)])
    assert tree.token_ids_T.tolist() == [1, 2, 3] and tree.until_T.tolist() == [3, 3, 3]


@pytest.mark.parametrize(("one", "other", "num"), [((1, 2), (1, 3), 1), ((1, 2), (1, 2, 3), 2), ((2,), (1,), 0)])
def test_what_is_shared_is_what_both_begin_with(one: tuple[int, ...], other: tuple[int, ...], num: int) -> None:
    assert num_shared(one, other) == num


def test_a_group_of_eight_computes_its_prompt_once() -> None:
    (tree,) = trees([run(n + 2, 30, prompt=500) for n in range(8)], 2048)
    assert tree.size == 500 + 8 * 30 and len(tree.samples) == 8


@pytest.mark.parametrize("prompt", [1100, 1900, 3000, 8000])
def test_a_long_prompt_is_computed_once_for_a_group_of_eight(prompt: int) -> None:
    """Also where it leaves no room for a second reply, or is above the bound itself."""
    found = rows(trees([run(n + 2, 200, prompt=prompt) for n in range(8)], 2048), 2048)
    assert [[tree.size for tree in row] for row in found] == [[prompt + 8 * 200]]


@pytest.mark.parametrize(("prompt", "sizes"), [(1000, [2000, 2000]), (1100, [3100]), (3000, [5000]), (8000, [10000])])
def test_a_tree_is_bounded_by_its_prompt_beside_what_it_adds_where_that_is_more_than_half(
    prompt: int, sizes: list[int]
) -> None:
    """Of a prompt of 1000 two trees keep to 2048; above half of it as much stands beside the prompt."""
    found = trees([run(n + 2, 500, prompt=prompt) for n in range(4)], 2048)
    assert [tree.size for tree in found] == sizes
    longer = trees([run(n + 2, 500, prompt=prompt) for n in range(40)], 2048)
    assert max(tree.size for tree in longer) == sizes[0]


def test_a_prompt_that_only_some_of_a_tree_share_gives_the_others_no_room() -> None:
    """Two that begin with 1100 alike, behind a group whose prompt of 3000 begins so too."""
    group = [sample(*(1,) * 1100, *(2,) * 1900, *(n + 3,) * 200) for n in range(8)]
    others = [sample(*(1,) * 1100, *(n + 3,) * 900) for n in range(2)]
    assert [tree.size for tree in trees([*group, *others], 2048)] == [3000 + 8 * 200, 1100 + 2 * 900]


@pytest.mark.parametrize(("prompt", "num_trees"), [(20, 2), (80, 1)])
def test_what_is_shared_is_left_where_branching_off_costs_more_than_it_saves(prompt: int, num_trees: int) -> None:
    """A system prompt before 600 tokens: of 20 it saves less than 0.08 x 600, of 80 more."""
    assert len(trees([run(2, 600, prompt=prompt), run(3, 600, prompt=prompt)], 4096)) == num_trees


def test_a_tree_keeps_to_the_bound() -> None:
    found = trees([run(n + 2, 30, prompt=100) for n in range(20)], 250)
    assert [len(tree.samples) for tree in found] == [5, 5, 5, 5] and max(tree.size for tree in found) == 250


def test_no_tree_is_lost_and_rows_keep_to_the_bound() -> None:
    lengths = [700, 30, 600, 90, 410, 400, 20, 1500, 10, 95]
    found = rows([Tree.of([run(n + 2, length)]) for n, length in enumerate(lengths)], 1000)
    sizes = [[tree.size for tree in row] for row in found]
    assert sizes == [[1500], [700, 95, 90, 30, 20, 10], [600, 400], [410]]
