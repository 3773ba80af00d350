"""What an inbox holds once rewards have come over the log."""

from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import TopicSpec
from ingest.log.reader import send
from ingest.records.events import Reward, session_key
from trainer.inbox import Inbox, Item


def items_of(*rewards: Reward, hinted_by: str = "") -> list[Item]:
    """In the order of the rewards."""
    log = InMemoryLog()
    log.create([TopicSpec(topics.REWARDS.name, 1, None)])
    for reward in rewards:
        send(log, topics.REWARDS, session_key(reward.session_id), reward)
    inbox = Inbox(log, {}, (), hinted_by=hinted_by)
    inbox.poll(0.0)
    inbox.close()
    return inbox.items
