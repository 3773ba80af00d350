from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import TopicSpec
from ingest.log.reader import send
from ingest.records.events import Reward, session_key
from trainer.eligibility import EligibleTurn, Ineligible, Reason
from trainer.inbox import GROUP, Inbox

RewardOf = Callable[..., Reward]


@pytest.fixture
def log() -> InMemoryLog:
    made = InMemoryLog()
    made.create([TopicSpec(topics.REWARDS.name, 2, None)])
    return made


@pytest.fixture
def open_inbox(log: InMemoryLog) -> Iterator[Callable[..., Inbox]]:
    opened: list[Inbox] = []

    def open_(positions: Any = None, fated: tuple[str, ...] = (), began: Any = None) -> Inbox:
        for before in opened:
            before.close()
        log.restart()
        opened.append(Inbox(log, positions or {}, fated, began=began))
        return opened[-1]

    yield open_
    opened[-1].close()


@pytest.fixture
def put(log: InMemoryLog, reward_of: RewardOf) -> Callable[..., Reward]:
    def put_(session: str, rewards: list[float | None], **fields: Any) -> Reward:
        reward = reward_of(session, rewards, **fields)
        send(log, topics.REWARDS, session_key(session), reward)
        return reward

    return put_


def sessions(inbox: Inbox) -> list[str]:
    return sorted(next(iter(item.turns)) for item in inbox.items)


def test_reading_goes_on_at_the_first_reward_that_was_not_used(
    open_inbox: Callable[..., Inbox], put: Callable[..., Reward]
) -> None:
    made = [put(f"s{number}", [1.0]).turns[0].trace_id for number in range(9)]
    inbox = open_inbox()
    inbox.poll(0.0)
    used = [next(iter(item.turns)) for item in inbox.items[:4]]
    after = open_inbox(inbox.positions_after(4))
    after.poll(0.0)  # finds itself assigned, and seeks
    after.poll(0.0)
    assert sessions(after) == sorted(set(made) - set(used))


def test_the_groups_position_is_a_hint_that_the_checkpoint_overrules(
    log: InMemoryLog, open_inbox: Callable[..., Inbox], put: Callable[..., Reward]
) -> None:
    for number in range(6):
        put(f"s{number}", [1.0])
    first = open_inbox()
    first.poll(0.0)
    first.commit(first.positions_after(6))
    assert log.lag(GROUP, [topics.REWARDS.name]) == {topics.REWARDS.name: 0}
    second = open_inbox({("rewards", 0): 0, ("rewards", 1): 0})
    second.poll(0.0)
    second.poll(0.0)
    assert len(second.items) == 6


def test_a_broker_restart_in_between_brings_nothing_twice(
    log: InMemoryLog, open_inbox: Callable[..., Inbox], put: Callable[..., Reward], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    inbox = open_inbox()
    for number in range(6):
        put(f"s{number}", [1.0])
        inbox.poll(0.0)
        log.restart()
    inbox.poll(0.0)
    assert len(inbox.items) == 6 and "came again" not in caplog.text


def test_leaving_the_group_and_joining_again_loses_and_repeats_nothing(
    open_inbox: Callable[..., Inbox], put: Callable[..., Reward]
) -> None:
    inbox = open_inbox()
    put("s1", [1.0])
    inbox.poll(0.0)
    inbox.close()
    put("s2", [1.0])
    inbox.poll(0.0)
    inbox.poll(0.0)
    assert len(inbox.items) == 2


def test_a_reward_that_comes_again_is_held_once(open_inbox: Callable[..., Inbox], put: Callable[..., Reward]) -> None:
    inbox = open_inbox()
    for _ in range(2):
        put("s", [1.0, 0.0])
    inbox.poll(0.0)
    assert inbox.num_eligible == 2


def test_a_trace_that_has_its_fate_is_not_held_again(
    open_inbox: Callable[..., Inbox], put: Callable[..., Reward]
) -> None:
    reward = put("s", [1.0, 0.0])
    inbox = open_inbox(fated=(reward.turns[0].trace_id,))
    inbox.poll(0.0)
    assert [list(item.turns) for item in inbox.items] == [[reward.turns[1].trace_id]]


def test_a_later_revision_takes_over_what_is_held_and_not_what_has_its_fate(
    open_inbox: Callable[..., Inbox], put: Callable[..., Reward]
) -> None:
    first = put("s", [0.1, 0.2])
    inbox = open_inbox(fated=(first.trace_ids[0],))
    inbox.poll(0.0)
    put("s", [0.8, 0.9], revision=2)
    inbox.poll(0.0)
    assert [(item.revision, len(item.chains), list(item.turns)) for item in inbox.items] == [
        (1, 0, []),
        (2, 1, [first.trace_ids[1]]),
    ]
    assert [turn.reward for item in inbox.items for turn in item.eligible] == [0.9]


def test_an_earlier_revision_that_comes_again_takes_nothing_back(
    open_inbox: Callable[..., Inbox], put: Callable[..., Reward]
) -> None:
    inbox = open_inbox()
    for revision in (1, 2, 1, 2):
        put("s", [revision / 10], revision=revision)
    inbox.poll(0.0)
    assert [turn.reward for item in inbox.items for turn in item.eligible] == [0.2]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_later_revision_of_what_was_used_trains_nothing_however_long_ago_that_was(
    open_inbox: Callable[..., Inbox], put: Callable[..., Reward], is_restarted: bool
) -> None:
    put("s", [0.1])
    inbox = open_inbox()
    inbox.poll(0.0)
    positions = inbox.positions_after(1)
    inbox.drop(1)
    inbox.remember((), ())  # its fate was told so many fates ago
    if is_restarted:
        inbox = open_inbox(positions)
        inbox.poll(0.0)
    put("s", [0.9], revision=2)
    put("s", [0.9], revision=3)
    put("other", [0.5])
    inbox.poll(0.0)
    assert [item.revision for item in inbox.items] == [1] and inbox.num_eligible == 1


def test_a_revision_takes_over_what_an_earlier_one_holds_though_the_first_was_left_behind(
    open_inbox: Callable[..., Inbox], put: Callable[..., Reward]
) -> None:
    put("s", [0.1])
    put("s", [0.5], revision=2)
    inbox = open_inbox()
    inbox.poll(0.0)
    inbox.drop(1)  # the first, whose turn the second holds
    inbox.remember((), ())
    put("s", [0.9], revision=3)
    inbox.poll(0.0)
    assert [turn.reward for item in inbox.items for turn in item.eligible] == [0.9]


def test_what_is_neither_held_nor_said_to_be_done_is_forgotten(
    log: InMemoryLog, open_inbox: Callable[..., Inbox], reward_of: RewardOf
) -> None:
    """Both are bounded, so memory is. Where nothing led back, a first revision does not come again so late."""
    inbox, reward = open_inbox(), reward_of("s", [1.0])
    num_held = []
    for done in (reward.trace_ids, ()):
        send(log, topics.REWARDS, session_key("s"), reward)
        inbox.poll(0.0)
        num_held.append(len(inbox.items))
        inbox.drop(1)
        inbox.remember((), done)
    send(log, topics.REWARDS, session_key("s"), reward)
    inbox.poll(0.0)
    assert (*num_held, len(inbox.items)) == (1, 0, 1)


def test_what_was_used_in_vain_is_read_again_and_what_has_its_fate_is_not(
    open_inbox: Callable[..., Inbox], put: Callable[..., Reward]
) -> None:
    names = [put(f"s{number}", [1.0]).turns[0].trace_id for number in range(9)]
    inbox = open_inbox()
    inbox.poll(0.0)
    told = next(iter(inbox.items[0].turns))
    before = inbox.positions_after(0)
    used, after = [next(iter(item.turns)) for item in inbox.items[:5]], inbox.positions_after(5)
    inbox.drop(5)
    put("later", [1.0])
    inbox.remember([told], ())
    inbox.go_back(before, [name for name in used if name != told], after)
    assert inbox.items == [] and inbox.num_unread() == 10
    inbox.poll(0.0)
    assert len(inbox.items) == 9 and set(sessions(inbox)) >= {*names} - {told} and told not in sessions(inbox)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_reading_goes_back_to_where_a_partition_was_first_read_and_not_to_its_beginning(
    log: InMemoryLog, open_inbox: Callable[..., Inbox], put: Callable[..., Reward], is_restarted: bool
) -> None:
    """As where a checkpoint was lost: the group's position says what was done before it."""
    old = [put(f"old{number}", [1.0]).turns[0].trace_id for number in range(4)]
    first = open_inbox()
    first.poll(0.0)
    first.commit(first.positions_after(4))
    new = [put(f"new{number}", [1.0]).turns[0].trace_id for number in range(6)]
    inbox = open_inbox()
    inbox.poll(0.0)
    assert sessions(inbox) == sorted(new)
    if is_restarted:
        began = inbox.began
        inbox = open_inbox(began, (), began)
        inbox.poll(0.0)
    inbox.go_back({}, new, {})
    assert (inbox.num_unread(), log.lag(GROUP, [topics.REWARDS.name])) == (6, {topics.REWARDS.name: 6})
    inbox.poll(0.0)
    assert sessions(inbox) == sorted(new) and not set(old) & set(sessions(inbox))


def test_an_inbox_that_left_its_group_goes_back_when_it_joins_again(
    log: InMemoryLog, open_inbox: Callable[..., Inbox], put: Callable[..., Reward]
) -> None:
    names = [put(f"s{number}", [1.0]).turns[0].trace_id for number in range(4)]
    inbox = open_inbox()
    inbox.poll(0.0)
    inbox.commit(inbox.positions_after(4))
    inbox.close()
    inbox.go_back({}, names, inbox.positions_after(4))
    inbox.poll(0.0)
    log.restart()  # the group's positions are where it would begin
    for _ in range(3):
        inbox.poll(0.0)
    assert sessions(inbox) == sorted(names)


def test_tokens_are_let_go_once_nothing_in_a_reward_can_train(
    open_inbox: Callable[..., Inbox], put: Callable[..., Reward]
) -> None:
    inbox = open_inbox()
    put("held", [1.0], held_out=True)
    put("s", [1.0, 0.0])
    inbox.poll(0.0)
    assert sorted(len(item.chains) for item in inbox.items) == [0, 1]

    def stale(_item: object, turn: EligibleTurn) -> Ineligible | None:
        return Ineligible(Reason.STALE) if turn.reward == 1.0 else None

    inbox.resolve(stale)
    assert inbox.num_eligible == 1 and max(len(item.chains) for item in inbox.items) == 1
    inbox.resolve(lambda _item, _turn: Ineligible(Reason.STALE))
    assert inbox.num_eligible == 0 and not any(item.chains for item in inbox.items)


def test_an_unreadable_reward_is_dead_lettered_and_passed(
    log: InMemoryLog, open_inbox: Callable[..., Inbox], put: Callable[..., Reward]
) -> None:
    log.append(topics.REWARDS.name, "k", b"junk", {"schema": "reward/1"})
    put("s", [1.0])
    inbox = open_inbox()
    inbox.poll(0.0)
    assert len(inbox.items) == 1
    assert len(list(log.replay(topics.dead_letters("rewards", GROUP)))) == 1
    assert sum(inbox.positions_after(1).values()) == 2
