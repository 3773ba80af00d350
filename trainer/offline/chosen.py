"""Rejection sampling: which trajectories are good enough to be imitated, and what they are as a chat dataset.

Of each tenant's rewards under each spec the best share is taken, none below a least reward, and none that nobody's
signal reached: their value is the price of silence. Tenants differ in what they are content with; the best of all
together would be the easiest customers. The selection is RAFT's (arXiv 2304.06767, section 3.1) with a key for the
prompt, of which there is one response.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ingest.records.chat import conversation, line, text_of, threads
from ingest.records.events import Reward
from ingest.records.kinds import TurnKind
from trainer.inbox import Item


@dataclass(frozen=True)
class Cut:
    """How much is taken of each key: `top_share` of its trajectories, of those with at least `min_reward`."""

    top_share: float
    min_reward: float

    def choose(self, rewards: Iterable[Reward]) -> frozenset[str]:
        """Ids of the rewards taken. Of equal ones the earlier are, so that a share is a share."""
        by_key: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
        for reward in rewards:
            by_key[reward.tenant, reward.spec].append((reward.value if reward.has_signal else -1.0, reward.reward_id))
        chosen: set[str] = set()
        for values in by_key.values():
            best = sorted(values, key=lambda one: -one[0])[: math.ceil(self.top_share * len(values))]
            chosen.update(name for value, name in best if value >= self.min_reward)
        return frozenset(chosen)


def chats(reward: Reward, item: Item) -> Iterator[str]:
    """A trajectory's conversations as `messages`, in the form `onstream traces export --format chat` has.

    Only such as consist of turns that train: whoever trains on the file learns from every reply in it.
    """
    assert reward.trajectory is not None
    turns = {turn.trace_id: turn for turn in reward.trajectory.turns if turn.kind is not TurnKind.SIDE}
    taken = {turn.trace_id for turn in item.eligible}
    for thread in threads({name: turn.parent for name, turn in turns.items()}):
        if taken.issuperset(thread):
            told = conversation([text_of(turns[name]) for name in thread])
            yield line(told | {"session_id": reward.session_id})
