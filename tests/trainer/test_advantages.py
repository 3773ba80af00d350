import json

import pytest

from trainer.advantages import Baselines, advantages, whiten


def test_a_known_key_is_measured_against_its_baseline_from_before_the_batch() -> None:
    baselines = Baselines({"a": 0.5, "b": 0.0})
    # r - b = 0.5, -0.5, 0.5, -0.5 ; mean 0, std 0.5
    found = advantages(baselines, ["a", "a", "b", "b"], [1.0, 0.0, 0.5, -0.5])
    assert found == pytest.approx([1.0, -1.0, 1.0, -1.0], abs=1e-4)


def test_the_baseline_moves_after_use_by_the_decay_of_as_many_turns() -> None:
    moved = Baselines({"a": 0.5}).after(["a", "a"], [1.0, 1.0], decay=0.9)
    assert moved.values["a"] == pytest.approx(0.81 * 0.5 + 0.19 * 1.0)


def test_a_batch_does_not_change_the_baselines_it_was_given() -> None:
    baselines = Baselines({"a": 0.5})
    baselines.after(["a"], [1.0], decay=0.9)
    assert baselines.values == {"a": 0.5}


def test_the_order_of_turns_in_a_batch_does_not_matter_to_the_baseline() -> None:
    one = Baselines({"a": 0.5}).after(["a", "a"], [1.0, 0.0], decay=0.9)
    other = Baselines({"a": 0.5}).after(["a", "a"], [0.0, 1.0], decay=0.9)
    assert one == other


def test_a_key_that_is_not_in_the_batch_keeps_its_baseline() -> None:
    assert Baselines({"a": 0.5}).after(["b"], [1.0], decay=0.9).values["a"] == 0.5


def test_a_first_key_begins_at_its_own_mean_shrunk_to_the_batch() -> None:
    # 8 prior turns at the batch's mean 0.5: a (1 + 8 * 0.5) / 9, b (1 + 4) / 11
    found = Baselines().before(["a", "b", "b", "b"], [1.0, 0.0, 0.0, 1.0])
    assert found == pytest.approx({"a": 5 / 9, "b": 5 / 11})


def test_a_key_that_fills_the_batch_begins_at_its_mean_and_not_at_zero() -> None:
    assert Baselines().before(["a", "a"], [1.0, 0.5]) == pytest.approx({"a": 0.75})


@pytest.mark.parametrize("reward", [1.0, 0.25])
def test_a_group_of_one_is_neither_its_raw_reward_nor_zero(reward: float) -> None:
    keys, rewards = ["alone", "b", "b", "b"], [reward, 0.0, 1.0, 1.0]
    found = Baselines().before(keys, rewards)
    advantage = rewards[0] - found["alone"]
    assert advantage != pytest.approx(reward) and advantage != pytest.approx(0.0)
    assert advantages(Baselines(), keys, rewards)[0] != pytest.approx(0.0, abs=1e-3)


def test_a_group_of_one_above_the_batch_is_pushed_up_and_one_below_it_down() -> None:
    keys = ["alone", "b", "b", "b"]
    assert advantages(Baselines(), keys, [1.0, 0.4, 0.5, 0.6])[0] > 0
    assert advantages(Baselines(), keys, [0.0, 0.4, 0.5, 0.6])[0] < 0


def test_whitened_advantages_have_mean_zero_and_deviation_one() -> None:
    # mean 2, population std sqrt(2/3)
    assert whiten([1.0, 2.0, 3.0]) == pytest.approx([-1.2247, 0.0, 1.2247], abs=1e-3)


def test_a_batch_without_variance_gives_zeros() -> None:
    assert advantages(Baselines({"a": 0.3}), ["a", "a", "a"], [0.7, 0.7, 0.7]) == pytest.approx([0.0] * 3, abs=1e-6)


def test_rounding_errors_are_not_whitened_into_advantages() -> None:
    assert whiten([0.1 + 0.2, 0.3, 0.3]) == pytest.approx([0.0] * 3, abs=1e-6)


def test_an_empty_batch_has_no_advantages() -> None:
    assert advantages(Baselines(), [], []) == []


def test_baselines_survive_json() -> None:
    baselines = Baselines().after(["a", "b"], [0.1, 1.0], decay=0.95)
    assert Baselines(json.loads(json.dumps(dict(baselines.values)))) == baselines
